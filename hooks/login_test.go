package hooks

import (
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api/login"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

// TestLogin: everybody may ask how one logs in; who shows a good credential is told what it is, and
// nobody is told why another is bad.
func TestLogin(t *testing.T) {
	w := newWorld(t)
	w.s.credentials.Issuers = []login.Issuer{{Name: "github", URL: "https://token.actions.githubusercontent.com", Audience: "https://cache.example.org", Flows: []string{login.JWT}}}
	ask := func(token string) login.Info {
		t.Helper()
		return decode[login.Info](t, w.must(w.do("GET", "/api/v1/login", token, nil), 200, ""))
	}
	for _, token := range []string{"", "x", newWorld(t).token("other", "admin"), strings.Repeat("x", 20_000)} {
		if info := ask(token); info.You != nil || len(info.Issuers) != 1 || info.Issuers[0].Name != "github" {
			t.Errorf("%.20s: %+v", token, info)
		}
	}
	end := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	secret, token, err := access.New("short", "web-1", scope.Set{{Kind: scope.Follow, Glob: "web"}}, time.Now(), end)
	if err == nil {
		err = w.tokens.Add(t.Context(), token)
	}
	if err != nil {
		t.Fatal(err)
	}
	you := ask(secret).You
	if you == nil || you.Credential != "token" || you.Name != "short" || you.Host != "web-1" || !you.Ends.Equal(end) || strings.Join(you.Scopes, " ") != "pull follow:web" {
		t.Errorf("%+v", you)
	}
	if _, err := w.tokens.Revoke(t.Context(), "short", w.now()); err != nil {
		t.Fatal(err)
	}
	if you := ask(secret).You; you != nil {
		t.Errorf("a revoked token is %+v", you)
	}
}
