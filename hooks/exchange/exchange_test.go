package exchange

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"narwharf/cache/state/memory"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/api/login"
	"narwharf/hooks/audit"
	"narwharf/signing/access"
	"narwharf/signing/access/oidc"
	"narwharf/signing/access/rule"
	"narwharf/signing/access/shortlived"
)

// judge knows JWTs by their names.
type judge map[string]func() (oidc.Identity, error)

func (j judge) Judge(_ context.Context, jwt string) (oidc.Identity, error) {
	if fn, ok := j[jwt]; ok {
		return fn()
	}
	return oidc.Identity{}, &oidc.Refused{Reason: "key"}
}

var noon = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

func identity(t *testing.T, s rule.Spec) func() (oidc.Identity, error) {
	t.Helper()
	r, err := rule.New(s, "https://forge.example.org")
	if err != nil {
		t.Fatal(err)
	}
	_, g := rule.Match("forge", []*rule.Rule{r}, map[string]any{"sub": "me"})
	g.Ends = noon.Add(time.Minute) // which the token outlives
	return func() (oidc.Identity, error) { return oidc.Identity{Grant: g, Rule: r}, nil }
}

func form(change ...string) url.Values {
	f := url.Values{"grant_type": {login.GrantExchange}, "subject_token_type": {login.TypeJWT}, "subject_token": {"good"}}
	for i := 0; i < len(change); i += 2 {
		if f.Set(change[i], change[i+1]); change[i+1] == "" {
			f.Del(change[i])
		}
	}
	return f
}

func exchangeForm(t *testing.T, x *Exchanger, f url.Values, from Caller) (*login.Token, error) {
	t.Helper()
	return x.Exchange(t.Context(), "application/x-www-form-urlencoded; charset=utf-8", strings.NewReader(f.Encode()), from)
}

func TestExchange(t *testing.T) {
	db := memory.New(func() time.Time { return noon })
	log := slog.New(slog.DiscardHandler)
	short, err := shortlived.Open(db, log)
	if err != nil {
		t.Fatal(err)
	}
	set := mirror.NewSet(db, log)
	claims := map[string]any{"sub": "me"}
	x := New(set, short, judge{
		"good":    identity(t, rule.Spec{Name: "main", Claims: claims, Scopes: []string{"push", "promote:prod"}, TTL: 2 * time.Hour}),
		"machine": identity(t, rule.Spec{Name: "vm", Claims: claims, Scopes: []string{"follow:web"}, Hosts: []string{"web-*"}}),
		"away":    func() (oidc.Identity, error) { return oidc.Identity{}, fmt.Errorf("%w: no", access.ErrUnchecked) },
		"broken":  func() (oidc.Identity, error) { return oidc.Identity{}, errors.New("disk on fire") },
	})
	from := Caller{Address: "192.0.2.7", Request: "r-1"}
	got, err := exchangeForm(t, x, form(), from)
	if err != nil || got.Type != "Bearer" || got.ExpiresIn != 7200 || got.Scope != "push promote:prod" || got.IssuedType != login.TypeAccessToken {
		t.Fatalf("%+v, %v", got, err)
	}
	id, err := access.ParseSecret(got.Secret)
	if err != nil {
		t.Fatal(err)
	}
	_, g, err := short.Lookup(t.Context(), id)
	if err != nil || g.Name() != "forge/main" || !g.Ends.Equal(noon.Add(2*time.Hour)) || g.Subject != "me" {
		t.Errorf("%+v, %v", g, err)
	}
	events, _, err := audit.Since(set, 0, 10, func(*api.Event) bool { return true })
	if err != nil || len(events) != 1 {
		t.Fatalf("%+v, %v", events, err)
	}
	e := events[0]
	if e.Kind != "token.exchanged" || e.By != "forge/main" || e.Data["token"] != id || strings.Contains(fmt.Sprintf("%+v", e), got.Secret) || !strings.Contains(e.Text, "until 2026-12-01T14:00:00Z: push,promote:prod") {
		t.Errorf("%+v", e)
	}
	if _, err := exchangeForm(t, x, form("subject_token_type", "urn:ietf:params:oauth:token-type:id_token", "requested_token_type", login.TypeAccessToken), from); err != nil {
		t.Errorf("as an ID token: %v", err)
	}

	for what, c := range map[string]struct {
		form   url.Values
		status int
		says   string
	}{
		"nothing":            {url.Values{}, 400, "grant_type is missing"},
		"another grant":      {form("grant_type", "password"), 400, "grant_type is not"},
		"another type":       {form("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"), 400, "subject_token_type is not"},
		"no JWT":             {form("subject_token", ""), 400, "subject_token is missing"},
		"a scope":            {form("scope", "pull"), 400, "scope is not taken"},
		"an actor":           {form("actor_token", "x"), 400, "actor_token is not taken"},
		"a refresh token":    {form("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"), 400, "requested_token_type is not"},
		"two":                {url.Values{"subject_token": {"good", "good"}}, 400, "2 times"},
		"a bad JWT":          {form("subject_token", "bad"), 401, ""},
		"a machine's":        {form("subject_token", "machine"), 403, "joins"},
		"an issuer away":     {form("subject_token", "away"), 503, "try again"},
		"terminals' control": {form("\x1b[2J", "x"), 400, "?[2J is not taken"},
	} {
		got, err := exchangeForm(t, x, c.form, from)
		status := 0
		if e := (*api.Error)(nil); errors.As(err, &e) {
			status = e.Status
		}
		if d := (*access.Denied)(nil); errors.As(err, &d) {
			status = d.Status
		}
		if got != nil || status != c.status || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %d %v", what, got, status, err)
		}
	}
	for _, media := range []string{"", "application/json", "x;"} {
		if _, err := x.Exchange(t.Context(), media, strings.NewReader(form().Encode()), from); err == nil || !strings.Contains(err.Error(), "send a form") {
			t.Errorf("as %q: %v", media, err)
		}
	}
	if _, err := x.Exchange(t.Context(), "application/x-www-form-urlencoded", strings.NewReader("%zz"), from); err == nil || !strings.Contains(err.Error(), "no form") {
		t.Errorf("what is no form: %v", err)
	}
	if _, err := exchangeForm(t, x, form("subject_token", "broken"), from); err == nil || errors.As(err, new(*api.Error)) {
		t.Errorf("a fault: %v", err)
	}
	if _, err := exchangeForm(t, New(set, short, nil), form(), from); err == nil || !strings.Contains(err.Error(), "[[access.oidc]]") {
		t.Errorf("without issuers: %v", err)
	}
	if n := len(short.List()); n != 2 {
		t.Errorf("there are %d tokens", n)
	}
}

// TestEnd: a token ends by its bearer's wish, once in the audit log; nothing else does, and for the state to
// fail is an error.
func TestEnd(t *testing.T) {
	db := memory.New(func() time.Time { return noon })
	log := slog.New(slog.DiscardHandler)
	short, err := shortlived.Open(db, log)
	if err != nil {
		t.Fatal(err)
	}
	set := mirror.NewSet(db, log)
	x := New(set, short, judge{"good": identity(t, rule.Spec{Name: "main", Claims: map[string]any{"sub": "me"}, Scopes: []string{"push"}, TTL: time.Hour})})
	got, err := exchangeForm(t, x, form(), Caller{})
	if err != nil {
		t.Fatal(err)
	}
	id, err := access.ParseSecret(got.Secret)
	if err != nil {
		t.Fatal(err)
	}
	good := &access.Principal{Credential: access.Valid, TokenID: id}
	for what, c := range map[string]struct {
		who   access.Principal
		shown bool
		says  string
	}{
		"a cookie":  {*good, false, "as Authorization: Bearer"},
		"nobody":    {access.Principal{}, true, "none that is good"},
		"expired":   {access.Principal{Credential: access.Expired, TokenID: id}, true, "none that is good"},
		"a token":   {access.Principal{Credential: access.Valid, TokenID: "abcdefghjk"}, true, "narwharf token revoke"},
		"a JWT":     {access.Principal{Credential: access.Valid, TokenID: "forge/main:me"}, true, "a JWT ends by itself"},
		"a join's":  {access.Principal{Credential: access.Valid, TokenID: "j01nabcdef"}, true, "revoked where it was made"},
		"no such a": {access.Principal{Credential: access.Unknown, TokenID: id}, true, "none that is good"},
	} {
		if err := x.End(t.Context(), &c.who, c.shown); err == nil || !strings.Contains(err.Error(), c.says) || len(short.List()) != 1 {
			t.Errorf("%s: %v", what, err)
		}
	}
	for range 2 {
		if err := x.End(t.Context(), good, true); err != nil {
			t.Fatal(err)
		}
	}
	if list := short.List(); len(list) != 0 {
		t.Errorf("there is %+v", list)
	}
	events, _, err := audit.Since(set, 1, 10, func(e *api.Event) bool { return e.Kind == "token.revoked" })
	if err != nil || len(events) != 1 || events[0].By != "forge/main" || events[0].Data["token"] != id {
		t.Errorf("%+v, %v", events, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := x.End(t.Context(), good, true); err == nil {
		t.Error("a state that is away ends a token")
	}
}
