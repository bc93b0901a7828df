package token

import (
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"narwharf/cache/state/memory"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
	"narwharf/signing/access/shortlived"
)

func newStore(t *testing.T) Store {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s := Store{State: memory.New(nil), Log: log}
	var err error
	if s.Tokens, _, err = access.Open(t.Context(), s.State, ""); err != nil {
		t.Fatal(err)
	}
	if s.Short, err = shortlived.Open(s.State, log); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s Store) issue(t *testing.T, rule string) (id string) {
	t.Helper()
	err := s.Short.Update(t.Context(), func(c shortlived.Change) error {
		g := access.Grant{Kind: "oidc", Issuer: "github", Rule: rule, Subject: "repo:octo/web", Scopes: scope.Set{{Kind: scope.Push}}}
		_, is, err := c.Issue(g, c.Time.Add(time.Hour), "192.0.2.1")
		id = is.ID
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (s Store) states(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	if _, err := List(t.Context(), s, true, &text); err != nil {
		t.Fatal(err)
	}
	var list []Listed
	if err := json.Unmarshal([]byte(text.String()), &list); err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, l := range list {
		words = append(words, strings.TrimSpace(l.Name+" "+l.State+" "+strings.Join(l.Scopes, ",")+" "+l.Kind+" "+l.Subject))
	}
	return strings.Join(words, "\n")
}

func TestShortLived(t *testing.T) {
	s := newStore(t)
	var out strings.Builder
	if _, err := Make(t.Context(), s, New{Name: "ci", Scopes: []string{"pull"}}, &out); err != nil {
		t.Fatal(err)
	}
	if _, err := Make(t.Context(), s, New{Name: "sh0rt-of-time", Scopes: []string{"pull"}}, &out); err != nil {
		t.Fatal(err)
	}
	one, _, _ := s.issue(t, "main"), s.issue(t, "main"), s.issue(t, "other")
	const github = "\ngithub/main active push oidc repo:octo/web"
	const other = "\ngithub/other active push oidc repo:octo/web"
	const named = "ci active pull\nsh0rt-of-time active pull"
	if got := s.states(t); got != named+github+github+other {
		t.Errorf("%s", got)
	}
	out.Reset()
	if _, err := Revoke(t.Context(), s, one, &out); err != nil || !strings.Contains(out.String(), "revoked one of github/main ("+one+")") {
		t.Errorf("%q, %v", out.String(), err)
	}
	if _, err := Revoke(t.Context(), s, one, &out); !errors.Is(err, access.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	if got := s.states(t); got != named+github+other {
		t.Errorf("%s", got)
	}
	if _, err := Revoke(t.Context(), s, "github/main", &out); err == nil || !strings.Contains(err.Error(), "token revoke --rule github/main") {
		t.Errorf("by the name of a rule: %v", err)
	}
	out.Reset()
	if _, err := RevokeRule(t.Context(), s, "github/main", &out); err != nil || !strings.HasPrefix(out.String(), "revoked 1 of github/main") {
		t.Errorf("%q, %v", out.String(), err)
	}
	if _, err := Revoke(t.Context(), s, "sh0rt-of-time", &out); err != nil {
		t.Errorf("a name that begins like an id: %v", err)
	}
	if got := s.states(t); got != strings.Replace(named, "time active", "time revoked", 1)+other {
		t.Errorf("%s", got)
	}
	if _, err := RevokeRule(t.Context(), s, "", &out); err == nil {
		t.Error("a rule without a name")
	}
}
