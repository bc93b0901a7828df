package serverconfig

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// of is a configuration with one issuer; "" leaves a line out.
func of(lines ...string) string {
	return "public_url = \"https://cache.example.org/\"\n[[access.oidc]]\n" + strings.Join(lines, "\n")
}

const (
	github = `name = "github"
issuer = "https://token.actions.githubusercontent.com"`
	forge = `name = "forge"
issuer = "https://forge.example.org/api/actions"`
	oneRule = `[[access.oidc.rules]]
name = "main"
claims = {repository_id = "456", ref = "refs/heads/main"}
scopes = ["push"]`
)

func TestOIDCSection(t *testing.T) {
	testSections(t, map[string]string{
		of(github, oneRule):                                              "",
		of(github, `audience = "nix"`, oneRule):                          "",
		of(github, `audience = "https://github.com/octo"`, oneRule):      "what GitHub puts into every JWT",
		of(github, `audience = "https://github.com/octo/"`, oneRule):     "what GitHub puts into every JWT",
		of(forge, `audience = "https://github.com/octo"`, oneRule):       "",
		of(forge, `audience = "https://management.azure.com"`, oneRule):  "Azure's own management",
		of(forge, `audience = "https://management.azure.com/"`, oneRule): "Azure's own management",
		"[[access.oidc]]\n" + github + "\n" + oneRule:                    "audience is missing, and there is no public_url",
		of(`name = "ssh"`, `issuer = "https://a.example.org"`, oneRule):  "the name is kept",
		of(github): "it has no rules",
		of(`issuer = "https://a.example.org"`, oneRule):                                            "access.oidc: section 1: name",
		of(`name = "a/b"`, oneRule):                                                                "access.oidc: section 1: name",
		of(`name = "a"`, oneRule):                                                                  "is not an https URL",
		of(`name = "a"`, `issuer = "http://a.example.org"`, oneRule):                               "is not an https URL",
		of(`name = "a"`, `issuer = "https://u:p@a.example.org"`, oneRule):                          "is not an https URL",
		of(`name = "a"`, `issuer = "https://a.example.org?x"`, oneRule):                            "is not an https URL",
		of(github, oneRule, "[[access.oidc]]", forge, oneRule):                                     "",
		of(github, oneRule, "[[access.oidc]]", github, oneRule):                                    "another section has that name",
		of(github, oneRule, "[[access.oidc]]", strings.Replace(github, "github", "b", 1), oneRule): "another section has that issuer",
		of(github, oneRule, oneRule):                                                               "access.oidc github: rules: main: another rule has that name",
		of(github, strings.Replace(oneRule, "repository_id", "actor_id", 1)):                       "strangers have accounts at this issuer: bind one of repository",
		of(forge, strings.Replace(oneRule, "repository_id", "actor_id", 1)):                        "",
		of(forge, oneRule, `ttl = "13h"`):                                                          "ttl: 13h0m0s is not between",
		of(forge, oneRule, `ttl = 3600`):                                                           `access.oidc.rules.ttl: 3600 is no duration`,
		of(forge, oneRule, `hosts = "web-*"`):                                                      "the rule has no scope follow:GLOB",
		of(forge, strings.Replace(oneRule, "push", "follow:web", 1)):                               "which names machines may have",
		of(forge, strings.Replace(oneRule, "push", "follow:web", 1), `hosts = "web-*"`):            "",
		of(forge, strings.Replace(oneRule, "push", "follow:web", 1), `hosts = ["web-*", "db-1"]`):  "",
		of(forge, strings.Replace(oneRule, "push", "follow:web", 1), `hosts = 7`):                  "neither a text",
		of(forge, strings.Replace(oneRule, "push", "follow:web", 1), `hosts = [7]`):                "no text in quotes",
		of(forge, strings.Replace(oneRule, "push", "fly", 1)):                                      `scope "fly" is not one of`,
		of(forge, oneRule, `claim = {a = "b"}`):                                                    "access.oidc.rules.claim is not a key that narwharf knows",
		of(forge, `client_secret_file = "s"`, oneRule):                                             "client_id is not",
	})
}

func TestOIDCValues(t *testing.T) {
	dir := t.TempDir()
	text := "data_dir = \"d\"\n" + of(forge, `client_id = "narwharf"`, `client_secret_file = "secret"`, `private_addresses = true`, `
[[access.oidc.rules]]
name = "vm"
scopes = ["follow:web"]
ttl = "30m"
host_claim = '"kubernetes.io".pod.name'
hosts = "web-*"
forget_after = "24h"
[access.oidc.rules.claims]
sub = "system:serviceaccount:ci:runner"
number = 7
protected = true
"kubernetes.io" = {namespace = "ci"}
`)
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	o := c.Access.OIDC[0]
	if secret, err := o.ClientSecret(); err != nil || secret != "s3cret" || o.Audience != "https://cache.example.org" || !o.PrivateAddresses {
		t.Errorf("%+v: %q, %v", o, secret, err)
	}
	if r := o.Checked(); len(r) != 1 || r[0].Name() != "vm" || !r[0].Machines() || !r[0].MayName("web-1") || r[0].MayName("db-1") {
		t.Errorf("%+v", r)
	}
	if r := o.Rules[0]; time.Duration(r.TTL) != 30*time.Minute || !reflect.DeepEqual(r.Claims["kubernetes.io"], map[string]any{"namespace": "ci"}) {
		t.Errorf("%+v", r)
	}
}
