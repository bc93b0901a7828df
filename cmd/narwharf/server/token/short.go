package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/signing/access/shortlived"
)

func listedShort(t shortlived.Token, now time.Time) Listed {
	g := t.Grant
	l := Listed{ID: t.ID, Name: g.Name(), State: "active", Created: t.Created, Expires: &g.Ends, By: t.Note, Host: g.Host, Kind: g.Kind, Subject: g.Subject}
	for _, scope := range g.Scopes {
		l.Scopes = append(l.Scopes, scope.String())
	}
	if !now.Before(g.Ends) {
		l.State = "expired"
	}
	return l
}

// changeShort changes short-lived tokens, with a line in the audit log.
func (s Store) changeShort(ctx context.Context, change func(c shortlived.Change) (api.Event, error)) error {
	return mirror.NewSet(s.State, s.Log).Update(ctx, []string{shortlived.Lock}, func(tx *mirror.Tx) error {
		e, err := change(s.Short.In(tx))
		if err == nil {
			audit.Note(tx, e)
		}
		return err
	})
}

func revokeShort(ctx context.Context, s Store, id string, out io.Writer) (int, error) {
	var t shortlived.Token
	err := s.changeShort(ctx, func(c shortlived.Change) (e api.Event, err error) {
		t, err = c.Revoke(id)
		return api.Event{Kind: "token.revoked", Host: t.Grant.Host, Text: fmt.Sprintf("revoked a token of %s (%s): %s", t.Grant.Name(), id, t.Grant.Scopes),
			Data: map[string]string{"token": id, "name": t.Grant.Name(), "subject": t.Grant.Subject}}, err
	})
	if err == nil {
		_, err = fmt.Fprintf(out, "revoked one of %s (%s)\n", t.Grant.Name(), id)
	}
	return ended(err)
}

// RevokeRule is the job token-revoke-rule: it ends all tokens that a rule gave, by its name with that of
// its issuer. Whoever still fits the rule may get another.
func RevokeRule(ctx context.Context, s Store, name string, out io.Writer) (int, error) {
	if name == "" {
		return 2, errors.New("the name of the rule is missing")
	}
	n := 0
	err := s.changeShort(ctx, func(c shortlived.Change) (e api.Event, err error) {
		n, err = c.RevokeRule(name)
		return api.Event{Kind: "token.revoked", Text: fmt.Sprintf("revoked the %d tokens of %s", n, name), Data: map[string]string{"name": name}}, err
	})
	if err == nil {
		_, err = fmt.Fprintf(out, "revoked %d of %s; who fits the rule may get another while it is in the configuration\n", n, name)
	}
	return ended(err)
}
