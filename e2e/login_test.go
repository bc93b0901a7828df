package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"narwharf/signing/access/oidc/oidctest"
)

// A job of a pretended GitHub Actions logs in by its environment alone, uploads with the netrc that this
// wrote to a private cache, and substitutes from it; after it has logged out, neither works. Nothing
// that it is told or prints has a secret.
func TestLogin(t *testing.T) {
	is := oidctest.New(t, oidctest.Options{})
	t.Setenv("SSL_CERT_FILE", is.RootsFile()) // of the server
	runner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != "bearer of-the-runner" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, `{"value":%q}`, is.Token(map[string]any{
			"aud": req.URL.Query().Get("audience"), "sub": "repo:acme/web:ref:refs/heads/main", "repository_id": "7", "ref": "refs/heads/main",
		}))
	}))
	defer runner.Close()
	s := NewServer(t, func(c *Config) {
		c.Anonymous = []string{}
		c.PublicURL = "https://cache.example.org"
		c.More = append(c.More, fmt.Sprintf(`[[access.oidc]]
name = "forge"
issuer = %q
private_addresses = true
[[access.oidc.rules]]
name = "main"
claims = { repository_id = "7", ref = "refs/heads/main" }
scopes = ["push"]`, is.URL))
	})
	op := filepath.Join(s.Dir, "op.token")
	if err := os.WriteFile(op, []byte(s.Token("op", "operate")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, suite := range Suites() {
		t.Run(suite, func(t *testing.T) {
			c := NeedClosures(t, suite)
			home := t.TempDir()
			variables := filepath.Join(home, "github-env")
			if err := os.WriteFile(variables, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			cli := func(args ...string) Output {
				t.Helper()
				return run(t, program{argv: s.argv(args...), dir: home, env: []string{
					"PATH=" + os.Getenv("PATH"), "HOME=" + home, "GITHUB_ACTIONS=true", "GITHUB_ENV=" + variables,
					"ACTIONS_ID_TOKEN_REQUEST_URL=" + runner.URL + "/?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=of-the-runner",
				}})
			}
			in := cli("login", s.URL())
			if in.Code != 0 || !strings.Contains(in.Stderr, "as forge/main (repo:acme/web:ref:refs/heads/main): push\n") || !strings.Contains(in.Stderr, "It ends ") {
				t.Fatalf("%v", in)
			}
			config, found := strings.CutPrefix(in.Line(), "export NIX_CONFIG='")
			config, ended := strings.CutSuffix(config, "'")
			if text, err := os.ReadFile(variables); err != nil || !found || !ended || string(text) != "NIX_CONFIG<<narwharf-end\n"+config+"\nnarwharf-end\n" {
				t.Errorf("$GITHUB_ENV has %s, %v\n%v", text, err, in)
			}
			NewNix(t, suite, config).In(c.Root).Push(s.URL(), "?compression=zstd", c.Path("b"))
			NewNix(t, suite, config).Trust(s.URL(), s.Key).Must("nix-store", "--realise", c.Path("b"))
			NewNix(t, suite).Trust(s.URL(), s.Key).Fails(nil, "nix-store", "--realise", c.Path("b"))

			netrc := filepath.Join(home, ".config", "narwharf", "netrc")
			text, err := os.ReadFile(netrc)
			token := text[strings.LastIndexByte(strings.TrimSpace(string(text)), ' ')+1:]
			if err != nil || !strings.HasPrefix(string(token), "nwt_") {
				t.Fatalf("%s, %v", text, err)
			}
			copied := strings.TrimSpace(string(token))
			out := cli("logout")
			if out.Code != 0 || !strings.Contains(out.Stderr, "The server has forgotten it.") {
				t.Fatalf("%v", out)
			}
			NewNix(t, suite, config).Trust(s.URL(), s.Key).Fails(nil, "nix-store", "--realise", c.Path("b"))
			NewNix(t, suite).In(c.Root).Netrc(copied).Fails([]string{"401"}, "nix", "copy", "--to", s.URL(), c.Path("c"))
			events := cli("events", "--server", s.URL(), "--token-file", op, "--who", "forge/*")
			for _, says := range []string{"token.exchanged", "repo:acme/web:ref:refs/heads/main", "127.0.0.1", "token.revoked"} {
				if !strings.Contains(events.Stdout, says) {
					t.Errorf("no %s in %v", says, events)
				}
			}
			for _, secret := range []string{copied[15:], "of-the-runner", "eyJ"} {
				if strings.Contains(in.String()+out.String()+events.String()+s.LogTail(), secret) {
					t.Errorf("%.4s… is printed", secret)
				}
			}
		})
	}
}
