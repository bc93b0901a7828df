package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"narwharf/signing/access/oidc/oidctest"
)

// nothing is a narinfo that is not there: 404 for who may read.
const nothing = "/00000000000000000000000000000000.narinfo"

// newOIDCServer is a private cache that takes the JWTs of an issuer; edit may be nil.
func newOIDCServer(t *testing.T, is *oidctest.Issuer, edit func(*Config)) *Server {
	t.Helper()
	s := newServer(t, scratch(t), func(c *Config) {
		c.Anonymous, c.PublicURL = []string{}, "https://cache.example.org"
		c.More = append(c.More, fmt.Sprintf(`[[access.oidc]]
name = "forge"
issuer = %q
private_addresses = true

[[access.oidc.rules]]
name = "main"
claims = {repository = "octo/web", ref = "refs/heads/main", event_name = ["push", "workflow_dispatch"]}
scopes = ["push"]
ttl = "5m"

[[access.oidc.rules]]
name = "reader"
claims = {repository = "octo/web"}
scopes = ["pull"]
`, is.URL))
		if edit != nil {
			edit(c)
		}
	})
	s.prefix = []string{"env", "SSL_CERT_FILE=" + is.RootsFile()}
	s.Start()
	return s
}

func jobClaims(change ...string) map[string]any {
	c := map[string]any{"aud": "https://cache.example.org", "sub": "repo:octo/web:ref:refs/heads/main", "repository": "octo/web", "ref": "refs/heads/main", "event_name": "push"}
	for i := 0; i < len(change); i += 2 {
		c[change[i]] = change[i+1]
	}
	return c
}

// exchange exchanges a JWT.
func (s *Server) exchange(jwt string) (status int, token string) {
	s.T.Helper()
	res, err := s.client.PostForm(s.URL()+"/api/v1/token", url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"}, "subject_token": {jwt},
	})
	if err != nil {
		s.T.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		s.T.Fatal(err)
	}
	return res.StatusCode, answer.Token
}

// A job uploads with its JWT as the password in netrc, and reads a private cache; so do real Nix clients of
// each version. What fits no rule, or is over, gets nothing.
func TestJWT(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		is := oidctest.New(t, oidctest.Options{})
		s := newOIDCServer(t, is, nil)
		push := is.Sign(oidctest.RS256, nil, jobClaims())
		pull := is.Sign(oidctest.ES256, nil, jobClaims("event_name", "pull_request", "ref", "refs/pull/7/merge"))
		a := c.Path("a")

		for _, bad := range []string{
			is.Token(jobClaims("repository", "evil/web")), is.Token(jobClaims("aud", "https://other.example.org")),
			is.Sign(oidctest.ES256, nil, map[string]any{"aud": "https://cache.example.org", "repository": "octo/web", "exp": time.Now().Add(-2 * time.Minute).Unix()}),
		} {
			NewNix(t, suite).In(c.Root).Netrc(bad).Fails([]string{"401"}, "nix", "copy", "--to", s.URL(), a)
		}
		NewNix(t, suite).In(c.Root).Netrc(pull).Fails([]string{"403", "push"}, "nix", "copy", "--to", s.URL(), a)
		NewNix(t, suite).In(c.Root).Netrc(push).Push(s.URL(), "?compression=zstd", a)
		NewNix(t, suite).Netrc(pull).Trust(s.URL(), s.Key).Must("nix-store", "--realise", a)
		NewNix(t, suite).Trust(s.URL(), s.Key).Fails(nil, "nix-store", "--realise", a)

		_, token := s.exchange(push)
		NewNix(t, suite).Netrc(token).Trust(s.URL(), s.Key).Must("nix-store", "--realise", a)
		if r := NewUploader(t, s.URL(), push).Get(nothing); r.Status != http.StatusNotFound {
			t.Errorf("as Bearer: %v", r)
		}
	})
}

// An upload that was begun with a JWT goes on beyond its end with the token that it was exchanged for, until
// that is revoked. A JWT by itself ends.
func TestTokenOutlivesItsJWT(t *testing.T) {
	t.Parallel()
	is := oidctest.New(t, oidctest.Options{})
	s := newOIDCServer(t, is, nil)
	ends := time.Now().Add(-57 * time.Second) // three seconds more, by the skew
	claims := jobClaims()
	claims["exp"] = ends.Unix()
	jwt := is.Token(claims)
	status, token := s.exchange(jwt)
	if status != http.StatusOK || !strings.HasPrefix(token, "nwt_sh0rt") {
		t.Fatalf("%d, %.12s", status, token)
	}
	get := func(credential string) int { return NewUploader(t, s.URL(), credential).Get(nothing).Status }
	if n := get(jwt); n != http.StatusNotFound {
		t.Errorf("the JWT, in time: %d", n)
	}
	time.Sleep(time.Until(ends.Add(62 * time.Second)))
	if n := get(jwt); n != http.StatusUnauthorized {
		t.Errorf("the JWT, after its end: %d", n)
	}
	if status, _ := s.exchange(jwt); status != http.StatusUnauthorized {
		t.Errorf("exchanged after its end: %d", status)
	}
	p := NewPath("late", RandomNAR(6, 100))
	doc, file := Describe(t, p, "/nix/store", "zstd")
	if r := NewUploader(t, s.URL(), token).Do(http.MethodPut, "/"+doc.URL, "", file); r.Status/100 != 2 {
		t.Errorf("an upload after the end of the JWT: %v", r)
	}
	if out := s.CLI("token", "list"); out.Code != 0 || !strings.Contains(out.Stdout, "forge/main") || strings.Contains(out.Stdout, token) {
		t.Errorf("token list\n%v", out)
	}
	if out := s.CLI("token", "revoke", "--rule", "forge/main"); out.Code != 0 || !strings.Contains(out.Stdout, "revoked 1 of forge/main") {
		t.Errorf("token revoke --rule\n%v", out)
	}
	if n := get(token); n != http.StatusUnauthorized {
		t.Errorf("the token, revoked: %d", n)
	}
}

// A request whose JWT is refused counts once in narwharf_oidc_refused_total, by its reason, however many parts of
// the server ask who it is: at the cache, at the API, at the exchange, on a connection that the fast path has. One
// that is taken, and one without a JWT, count nothing.
func TestRefusedJWTsAreCounted(t *testing.T) {
	t.Parallel()
	is := oidctest.New(t, oidctest.Options{})
	s := newOIDCServer(t, is, nil)
	watcher := NewUploader(t, s.URL(), s.Token("watcher", "metrics"))
	count := func(reason string) string {
		t.Helper()
		for line := range strings.Lines(watcher.Get("/metrics").Body) {
			if n, ok := strings.CutPrefix(line, fmt.Sprintf("narwharf_oidc_refused_total{issuer=\"forge\",reason=%q} ", reason)); ok {
				return strings.TrimSpace(n)
			}
		}
		return "0"
	}
	other, none := is.Token(jobClaims("aud", "https://other.example.org")), is.Token(jobClaims("repository", "evil/web"))
	requests := []func(jwt string){
		func(jwt string) { NewUploader(t, s.URL(), jwt).Get(nothing) },
		func(jwt string) { NewUploader(t, s.URL(), jwt).Do(http.MethodPut, nothing, "", []byte("x")) },
		func(jwt string) { NewUploader(t, s.URL(), jwt).Get("/api/v1/hosts") },
		func(jwt string) {
			NewUploader(t, s.URL(), jwt).Do(http.MethodPost, "/api/v1/channels/web", "", []byte("{}"))
		},
		func(jwt string) { s.exchange(jwt) },
	}
	for i, ask := range requests {
		ask(other)
		if got := count("audience"); got != fmt.Sprint(i+1) {
			t.Fatalf("after request %d with a JWT for another server: %s are counted, want %d", i+1, got, i+1)
		}
	}
	for _, ask := range requests {
		ask(none)
		ask(is.Token(jobClaims()))
	}
	NewUploader(t, s.URL(), "").Get(nothing)
	if audience, rule := count("audience"), count("rule"); audience != fmt.Sprint(len(requests)) || rule != audience {
		t.Errorf("%s for another server and %s that fit no rule are counted, want %d of each", audience, rule, len(requests))
	}
}

// A server starts while the issuer is away, and says so when a JWT comes; it takes the next when that is back.
func TestIssuerAway(t *testing.T) {
	t.Parallel()
	is := oidctest.New(t, oidctest.Options{})
	s := newOIDCServer(t, is, nil)
	is.Serve(func(http.Handler) http.Handler { return http.NotFoundHandler() })
	if n := NewUploader(t, s.URL(), is.Token(jobClaims())).Get(nothing).Status; n != http.StatusServiceUnavailable {
		t.Errorf("a JWT of an issuer that is away: %d", n)
	}
	if status, _ := s.exchange(is.Token(jobClaims())); status != http.StatusServiceUnavailable {
		t.Errorf("exchanged: %d", status)
	}
	if n := NewUploader(t, s.URL(), s.Token("ci", "push")).Get(nothing).Status; n != http.StatusNotFound {
		t.Errorf("a token, meanwhile: %d", n)
	}
	if page := s.Metrics(); !strings.Contains(page, `narwharf_oidc_fetch_failures_total{issuer="forge"} 1`) {
		t.Error("the failure is not in /metrics")
	}
}
