package access

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"narwharf/cmd/narwharf/command"
	"narwharf/signing/access/oidc/oidctest"
)

// TestExplain: which rule counts, what differs of the others, and never the JWT's signature.
func TestExplain(t *testing.T) {
	is := oidctest.New(t, oidctest.Options{})
	t.Setenv("SSL_CERT_FILE", is.RootsFile())
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf(`listen = ["127.0.0.1:0"]
data_dir = "data"
public_url = "https://cache.example.org"
[[access.oidc]]
name = "forge"
issuer = %q
private_addresses = true
[[access.oidc.rules]]
name = "main"
claims = { ref = "refs/heads/main", event_name = "push" }
scopes = ["push", "promote:prod"]
[[access.oidc.rules]]
name = "any"
claims = { ref = "refs/heads/*" }
scopes = ["push"]
`, is.URL)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	explain := func(stdin string, args ...string) (string, error) {
		c := Rules()
		var out, errs bytes.Buffer
		c.SetIn(strings.NewReader(stdin))
		c.SetOut(&out)
		c.SetErr(&errs)
		c.SilenceErrors, c.SilenceUsage = true, true
		c.SetArgs(append([]string{"explain", "--config", config}, args...))
		err := c.Execute()
		return out.String() + errs.String(), err
	}
	good := map[string]any{"aud": "https://cache.example.org", "sub": "x", "ref": "refs/heads/main", "event_name": "push"}
	with := func(name string, value any) map[string]any {
		claims := map[string]any{name: value}
		for k, v := range good {
			if k != name {
				claims[k] = v
			}
		}
		return claims
	}
	for name, c := range map[string]struct {
		claims map[string]any
		exit   int
		says   []string
	}{
		"main":      {good, 0, []string{"The issuer is forge.", "rule main: it fits, and counts", "rule any: it fits, but one above it counts"}},
		"another":   {with("event_name", "schedule"), 0, []string{"rule main: it does not fit\n    event_name is \"schedule\", and has to be \"push\"", "rule any: it fits, and counts"}},
		"none":      {with("ref", "refs/tags/v1"), 1, []string{"rule main: it does not fit", "rule any: it does not fit\n    ref is \"refs/tags/v1\""}},
		"not ours":  {with("iss", "https://evil.example"), 1, []string{"issuer is none that this server trusts"}},
		"for other": {with("aud", "https://other.example.org"), 1, []string{"rule main: it fits, and counts", "audience"}},
		"over":      {with("exp", 1000), 1, []string{"The issuer is forge."}},
	} {
		jwt := is.Token(c.claims)
		file := filepath.Join(dir, "jwt")
		if err := os.WriteFile(file, []byte(jwt+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		text, err := explain("", file)
		if exit := command.Exit(0); (c.exit == 0) != (err == nil) || err != nil && (!errors.As(err, &exit) || int(exit) != c.exit) {
			t.Errorf("%s: %v", name, err)
		}
		for _, says := range c.says {
			if !strings.Contains(text, says) {
				t.Errorf("%s: it does not say %q:\n%s", name, says, text)
			}
		}
		again, _ := explain(jwt, "-", "--json")
		signature := jwt[strings.LastIndexByte(jwt, '.')+1:]
		if strings.Contains(text+again, signature) || !strings.Contains(again, "{") {
			t.Errorf("%s: %s", name, again)
		}
		if text, err := explain("", jwt); err == nil || strings.Contains(err.Error()+text, signature) || !strings.Contains(err.Error(), "list of processes") {
			t.Errorf("%s: as an argument: %v", name, err)
		}
	}
}
