package session

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"narwharf/cache/state/memory"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
	"narwharf/signing/access/shortlived"
)

// A session of a token lasts no longer than that, and a host's token makes none. One of a rule is no host's,
// whatever the rule says.
func TestBegin(t *testing.T) {
	st := memory.New(time.Now)
	tokens, _, err := access.Open(t.Context(), st, filepath.Join(t.TempDir(), "tokens"))
	if err != nil {
		t.Fatal(err)
	}
	short, err := shortlived.Open(st, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := New(short, tokens)
	pull := scope.Set{{Kind: scope.Pull}}
	ends := time.Now().Add(10 * time.Minute)
	_, tok, err := access.New("ada", "", pull, time.Now(), ends)
	if err == nil {
		err = tokens.Add(t.Context(), tok)
	}
	if err != nil {
		t.Fatal(err)
	}
	for what, who := range map[string]access.Principal{
		"nobody": {}, "a host's": {Credential: access.Valid, Name: "web", Host: "web-1", Scopes: pull},
		"a rule's": {Credential: access.Valid, Name: "idp/ops", Scopes: pull, Grant: access.Grant{Kind: "oidc"}}, "a revoked one": {Credential: access.Revoked, Former: "ada"},
	} {
		if g, err := OfToken(who); err == nil {
			t.Errorf("%s token: %+v", what, g)
		}
	}
	g, err := OfToken(access.Principal{Credential: access.Valid, Name: "ada", TokenID: tok.ID, Scopes: pull})
	if err != nil {
		t.Fatal(err)
	}
	begin := func(g access.Grant) (made shortlived.Token) {
		t.Helper()
		err := s.Update(t.Context(), func(c shortlived.Change) (err error) {
			_, made, err = Begin(c, g, "192.0.2.1 test", "")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	made := begin(g)
	if _, is, err := s.Lookup(t.Context(), made.ID); err != nil || is.Ends.After(ends) || is.Kind != Kind || is.Name() != "session/ada" {
		t.Errorf("%+v, %v", is, err)
	}
	host := begin(access.Grant{Kind: "oidc", Issuer: "idp", Rule: "ops", Subject: "x", Scopes: pull, Host: "web-1", Owner: "idp/x", TTL: 2 * time.Hour, Forget: time.Hour})
	if is := host.Grant; is.Host != "" || is.Owner != "" || is.Forget != 0 || is.Ends.Before(time.Now().Add(119*time.Minute)) {
		t.Errorf("%+v", is)
	}
	if list := s.List(t.Context(), time.Now()); len(list) != 2 {
		t.Errorf("%d sessions", len(list))
	}
	if _, err := tokens.Revoke(t.Context(), "ada", time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Lookup(t.Context(), made.ID); !errors.Is(err, access.ErrNotFound) {
		t.Errorf("after its token was revoked: %v", err)
	}
	// What is no session is not ended as one.
	var other shortlived.Token
	err = short.Update(t.Context(), func(c shortlived.Change) (err error) {
		_, other, err = c.Issue(access.Grant{Kind: "oidc", Issuer: "idp", Rule: "ci", Subject: "y", Scopes: pull}, time.Now().Add(time.Hour), "")
		if err == nil {
			if _, wrong := End(c, other.ID); !errors.Is(wrong, shortlived.ErrNotFound) {
				t.Errorf("a token of CI: %v", wrong)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
