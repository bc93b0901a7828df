package login

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	wire "narwharf/hooks/api/login"
	"narwharf/signing/access"
	"narwharf/signing/access/oidc/oidctest"
	"narwharf/signing/access/scope"
)

// site is a pretended server that takes one token, and exchanges JWTs.
type site struct {
	*httptest.Server
	issuers []wire.Issuer
	token   string
	jwts    []string // that were exchanged
	old     bool     // it is from before logins
}

func newSite(t *testing.T, issuers ...wire.Issuer) *site {
	t.Helper()
	secret, _, err := access.New("ci", "", scope.Set{{Kind: scope.Push}}, time.Now(), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{issuers: issuers, token: secret}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *site) serve(w http.ResponseWriter, req *http.Request) {
	answer := func(status int, v any) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	switch at := req.Method + " " + req.URL.Path; {
	case s.old:
		answer(404, api.Errorf(api.NotFound, "there is nothing"))
	case at == "GET /api/v1/login":
		info := wire.Info{Issuers: s.issuers}
		if req.Header.Get("Authorization") == "Bearer "+s.token {
			info.You = &wire.You{Credential: "token", Name: "ci", Scopes: []string{"push"}}
		}
		answer(200, info)
	case at == "POST /api/v1/token":
		if req.FormValue("subject_token_type") != "urn:ietf:params:oauth:token-type:jwt" || req.FormValue("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange" {
			answer(400, api.Errorf(api.BadRequest, "no exchange"))
			return
		}
		s.jwts = append(s.jwts, req.FormValue("subject_token"))
		answer(200, wire.Token{Secret: s.token, ExpiresIn: 3600, Scope: "push"})
	}
}

func (s *site) login(t *testing.T) (*Login, *[]string) {
	t.Helper()
	said := new([]string)
	l := &Login{
		Client: func(token string) (*api.Client, error) {
			return api.NewClient(api.ClientOptions{Servers: []string{s.URL}, Token: token})
		},
		Say: func(format string, args ...any) { *said = append(*said, fmt.Sprintf(format, args...)) },
	}
	if err := l.Ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l, said
}

const someJWT = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln"

func TestWith(t *testing.T) {
	s := newSite(t)
	l, _ := s.login(t)
	r, err := l.With(t.Context(), s.token)
	if err != nil || r.Secret != s.token || r.You.Name != "ci" || !r.Ends.IsZero() {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = l.With(t.Context(), someJWT)
	if err != nil || r.Secret != s.token || len(s.jwts) != 1 || s.jwts[0] != someJWT || time.Until(r.Ends) < 59*time.Minute {
		t.Errorf("%+v, %v", r, err)
	}
	other := newSite(t).token
	for secret, says := range map[string]string{
		other: "does not take this token", s.token[:30]: "cut short", "ghp_secret": "is not a narwharf token", "": "is not a narwharf token",
	} {
		if _, err := l.With(t.Context(), secret); err == nil || !strings.Contains(err.Error(), says) || secret != "" && strings.Contains(err.Error(), secret) {
			t.Errorf("%.12s…: %v", secret, err)
		}
	}
	s.old = true
	l, _ = s.login(t)
	if r, err := l.With(t.Context(), s.token); err != nil || r.Secret != s.token || r.You != nil {
		t.Errorf("an old server: %+v, %v", r, err)
	}
	if _, err := l.With(t.Context(), someJWT); err == nil || !strings.Contains(err.Error(), "exchanges no JWTs") {
		t.Errorf("an old server: %v", err)
	}
}

// TestCI: the CI is known by its environment, is asked for a JWT of the audience that the server has
// for it, and the server exchanges that.
func TestCI(t *testing.T) {
	runner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != "bearer runner-secret" || req.URL.Query().Get("api-version") != "2.0" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, `{"value":"eyJh.%s.c"}`, strings.NewReplacer(":", "-", "/", "-").Replace(req.URL.Query().Get("audience")))
	}))
	defer runner.Close()
	issuer := func(name, url, audience string) wire.Issuer {
		return wire.Issuer{Name: name, URL: url, Audience: audience, Flows: []string{wire.JWT}}
	}
	all := []wire.Issuer{
		issuer("github", "https://token.actions.githubusercontent.com", "for-github"), issuer("forge", "https://git.example.org/api/actions", "for-forgejo"),
		issuer("gitlab", "https://gitlab.com", "for-gitlab"), issuer("buildkite", "https://agent.buildkite.com", "for-buildkite"),
		issuer("circle", "https://oidc.circleci.com/org/1", "1"),
	}
	actions := []string{"GITHUB_ACTIONS=true", "ACTIONS_ID_TOKEN_REQUEST_URL=" + runner.URL + "/?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=runner-secret"}
	for name, c := range map[string]struct {
		env     []string
		issuers []wire.Issuer
		issuer  string
		jwt     string // exchanged, or
		says    string
	}{
		"any":               {[]string{TokenVariable + "=" + someJWT, "GITLAB_CI=true"}, all, "", someJWT, ""},
		"github":            {append(actions, "GITHUB_SERVER_URL=https://github.com"), all, "", "eyJh.for-github.c", ""},
		"forgejo":           {append(actions, "GITHUB_SERVER_URL=https://git.example.org"), all, "", "eyJh.for-forgejo.c", ""},
		"another forgejo":   {append(actions, "GITHUB_SERVER_URL=https://git.evil.example"), all, "", "", "several issuers, none of which is plainly that of GitHub Actions: add --oidc NAME, one of github, forge, gitlab, buildkite, circle"},
		"named":             {append(actions, "GITHUB_SERVER_URL=https://git.alias.example"), all, "forge", "eyJh.for-forgejo.c", ""},
		"the only one":      {actions, all[1:2], "", "eyJh.for-forgejo.c", ""},
		"none":              {actions, nil, "", "", "trusts no issuer by which GitHub Actions could log in"},
		"no permission":     {[]string{"GITHUB_ACTIONS=true"}, all, "", "", "permissions: {id-token: write}"},
		"a wrong secret":    {[]string{actions[1], "ACTIONS_ID_TOKEN_REQUEST_TOKEN=x"}, all, "", "", "status 403"},
		"gitlab":            {[]string{"GITLAB_CI=true", "CI_SERVER_URL=https://gitlab.com"}, all, "", "", `id_tokens: {NARWHARF_OIDC_TOKEN: {aud: "for-gitlab"}}`},
		"buildkite":         {[]string{"BUILDKITE=true"}, all, "", "eyJh.for-buildkite.c", ""},
		"circle":            {[]string{"CIRCLECI=true", "CIRCLE_OIDC_TOKEN_V2=" + someJWT}, all, "", someJWT, ""},
		"circle, no issuer": {[]string{"CIRCLE_OIDC_TOKEN_V2=" + someJWT}, nil, "", someJWT, ""},
	} {
		s := newSite(t, c.issuers...)
		l, _ := s.login(t)
		l.Issuer = c.issuer
		m := &Machine{
			Getenv: func(name string) string {
				for _, kv := range c.env {
					if v, ok := strings.CutPrefix(kv, name+"="); ok {
						return v
					}
				}
				return ""
			},
			Run: func(_ context.Context, name string, args ...string) (string, error) {
				if strings.Join(append([]string{name}, args[:3]...), " ") != "buildkite-agent oidc request-token --audience" {
					t.Errorf("%s: it runs %s %q", name, name, args)
				}
				return "eyJh." + args[3] + ".c", nil
			},
		}
		r, err := l.Job(t.Context(), m.CI())
		switch {
		case c.says != "":
			if err == nil || !strings.Contains(err.Error(), c.says) || len(s.jwts) > 0 {
				t.Errorf("%s: %v", name, err)
			}
		case err != nil || r.Secret != s.token || !slices.Equal(s.jwts, []string{c.jwt}):
			t.Errorf("%s: %q, %v", name, s.jwts, err)
		}
	}
	if ci := (&Machine{Getenv: func(string) string { return "" }}).CI(); ci != nil {
		t.Errorf("a laptop is %s", ci.Name)
	}
}

// TestDevice: somebody logs in with a browser, or does not.
func TestDevice(t *testing.T) {
	is := oidctest.New(t, oidctest.Options{Clients: []oidctest.Client{{ID: "narwharf-cli"}}})
	person := wire.Issuer{Name: "sso", URL: is.URL, ClientID: "narwharf-cli", Flows: []string{wire.JWT, wire.Device, wire.Code}}
	machine := wire.Issuer{Name: "github", URL: "https://token.actions.githubusercontent.com", Flows: []string{wire.JWT}}
	s := newSite(t, machine, person)
	l, said := s.login(t)
	if !l.Person() {
		t.Fatal("no person can log in")
	}
	answer := func(claims map[string]any) {
		for t.Context().Err() == nil {
			if codes := is.Codes(); len(codes) > 0 && is.Approve(codes[0], claims) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	go answer(map[string]any{"sub": "alice"})
	r, err := l.Device(t.Context(), is.Client())
	if err != nil || r.Secret != s.token || len(s.jwts) != 1 || strings.Count(s.jwts[0], ".") != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	if text := strings.Join(*said, "\n"); !strings.Contains(text, "Open "+is.URL+"/activate and enter ") || !strings.Contains(text, "It waits for you until ") {
		t.Errorf("it says %s", text)
	}
	go answer(nil)
	if _, err := l.Device(t.Context(), is.Client()); err == nil || !strings.Contains(err.Error(), "the issuer sso did not log you in: it was refused there") {
		t.Errorf("refused: %v", err)
	}
	for name, c := range map[string]struct{ client, issuer, says string }{
		"a client that it does not know": {"other", "", "begins no login"},
		"an issuer that is none":         {"narwharf-cli", "nobody", "add --oidc NAME, one of sso"},
		"one of programs":                {"narwharf-cli", "github", "add --oidc NAME, one of sso"},
	} {
		other := person
		other.ClientID = c.client
		l, _ := newSite(t, machine, other).login(t)
		l.Issuer = c.issuer
		if _, err := l.Device(t.Context(), is.Client()); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	l, _ = newSite(t, machine).login(t)
	if l.Person() {
		t.Error("a person can log in where there are programs alone")
	}
}
