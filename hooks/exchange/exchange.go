// Package exchange gives a token of ours for a JWT, in the form of RFC 8693: a JWT is short, and what is
// done with it may take longer. The token has the scopes of the rule that the JWT fits, and its ttl; the
// audit log says whose it is.
//
// A machine's JWT is exchanged by a join alone: who follows has to have a name that belongs to him.
package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/url"
	"slices"
	"strings"
	"time"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/api/login"
	"narwharf/hooks/audit"
	"narwharf/narinfo/clip"
	"narwharf/signing/access"
	"narwharf/signing/access/oidc"
	"narwharf/signing/access/shortlived"
)

// Judge says what a JWT gives. A *oidc.Refused, access.ErrUnchecked.
type Judge interface {
	Judge(ctx context.Context, jwt string) (oidc.Identity, error)
}

// Exchanger gives tokens.
type Exchanger struct {
	set   *mirror.Set
	short *shortlived.Store
	judge Judge
}

// New makes an Exchanger of tokens in a state. A nil judge knows no JWT.
func New(set *mirror.Set, short *shortlived.Store, judge Judge) *Exchanger {
	return &Exchanger{set, short, judge}
}

// Caller is who asks.
type Caller struct{ Address, Request string }

// The parameters that are taken, and what they have to be; nil: anything.
var parameters = map[string][]string{
	"grant_type":           {login.GrantExchange},
	"subject_token_type":   {login.TypeJWT, "urn:ietf:params:oauth:token-type:id_token"},
	"subject_token":        nil,
	"requested_token_type": {login.TypeAccessToken},
}

// subject is the JWT in a form.
func subject(form url.Values) (string, error) {
	for _, name := range slices.Sorted(maps.Keys(form)) {
		may, known := parameters[name]
		switch {
		case !known:
			return "", api.Errorf(api.BadRequest, "the parameter %s is not taken here: send grant_type, subject_token and subject_token_type", clip.ASCII(name, 40))
		case len(form[name]) > 1:
			return "", api.Errorf(api.BadRequest, "the parameter %s is there %d times", name, len(form[name]))
		case may != nil && !slices.Contains(may, form.Get(name)):
			return "", api.Errorf(api.BadRequest, "%s is not %s", name, strings.Join(may, " or "))
		}
	}
	for _, name := range []string{"grant_type", "subject_token_type", "subject_token"} {
		if form.Get(name) == "" {
			return "", api.Errorf(api.BadRequest, "the parameter %s is missing", name)
		}
	}
	return form.Get("subject_token"), nil
}

// MaxBody bounds a form, in bytes.
const MaxBody = 64 << 10

// Exchange gives a token for the JWT in a form. An *api.Error, a denial, or what body says.
func (x *Exchanger) Exchange(ctx context.Context, contentType string, body io.Reader, from Caller) (*login.Token, error) {
	if media, _, err := mime.ParseMediaType(contentType); err != nil || media != "application/x-www-form-urlencoded" {
		return nil, api.Errorf(api.BadRequest, "send a form: Content-Type application/x-www-form-urlencoded")
	}
	text, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(text))
	if err != nil {
		return nil, api.Errorf(api.BadRequest, "the body is no form")
	}
	return x.ofForm(ctx, form, from)
}

func (x *Exchanger) ofForm(ctx context.Context, form url.Values, from Caller) (*login.Token, error) {
	jwt, err := subject(form)
	if err != nil {
		return nil, err
	}
	if x.judge == nil {
		return nil, api.Errorf(api.NotFound, "no JWT is taken here: the server's configuration has no [[access.oidc]]")
	}
	id, err := x.judge.Judge(ctx, jwt)
	var refused *oidc.Refused
	switch {
	case errors.Is(err, access.ErrUnchecked):
		return nil, api.Errorf(api.Unavailable, "the JWT could not be checked now, since its issuer does not answer: try again soon")
	case errors.As(err, &refused):
		return nil, access.Refuse(401, refused.Error())
	case err != nil:
		return nil, err
	case id.Rule.Machines():
		return nil, access.Refuse(403, fmt.Sprintf("the JWT is a machine's, by the rule %s: its agent joins with it, and gets a token that follows", id.Grant.Name()))
	}
	return x.issue(ctx, id.Grant, from)
}

// issue makes the token, and a line in the audit log.
func (x *Exchanger) issue(ctx context.Context, g access.Grant, from Caller) (*login.Token, error) {
	ctx = audit.For(ctx, api.Actor{Credential: g.Kind, Name: g.Name(), Subject: g.Subject, Address: from.Address}, from.Request)
	var answer *login.Token
	err := x.set.Update(ctx, []string{shortlived.Lock}, func(tx *mirror.Tx) error {
		secret, t, err := x.short.In(tx).Issue(g, tx.Time.Add(g.TTL), clip.Line(from.Address, 100))
		if err != nil {
			return err
		}
		var words []string
		for _, s := range g.Scopes {
			words = append(words, s.String())
		}
		answer = &login.Token{
			Secret: secret, IssuedType: login.TypeAccessToken, Type: "Bearer",
			ExpiresIn: int64(t.Grant.Ends.Sub(tx.Time) / time.Second), Scope: strings.Join(words, " "),
		}
		audit.Note(tx, api.Event{
			Kind: "token.exchanged", By: g.Name(), Data: map[string]string{"token": t.ID, "scopes": g.Scopes.String(), "subject": g.Subject},
			Text: fmt.Sprintf("a JWT of %s, by the rule %s, for the token %s, until %s: %s", clip.Line(g.Subject, 128), g.Name(), t.ID, t.Grant.Ends.Format(time.RFC3339), g.Scopes),
		})
		return nil
	})
	if errors.Is(err, shortlived.ErrFull) {
		return nil, api.Errorf(api.Unavailable, "%v", err)
	}
	return answer, err
}
