package serverconfig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func rewrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func writeConfig(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "config.toml")
	rewrite(t, path, text)
	return path
}

func TestCertificates(t *testing.T) {
	tls := "[tls]\ncert = \"c.pem\"\nkey = \"c.key\"\n"
	ci := "[[access.certificate]]\nname = \"ci\"\nclaims = {cn = \"ci\"}\nscopes = [\"push\"]\n"
	for words, lines := range map[string]string{
		"tls.client_ca":   ci,
		"another rule":    tls + "client_ca = \"ca.pem\"\n" + ci + ci,
		"host_claim":      tls + "client_ca = \"ca.pem\"\n" + strings.Replace(ci, "push", "follow:web", 1) + "hosts = \"web-*\"\n",
		"claims":          tls + "client_ca = \"ca.pem\"\n" + strings.Replace(ci, "claims = {cn = \"ci\"}\n", "", 1),
		"tls.key is":      "[tls]\ncert = \"c.pem\"\n",
		"tls.cert is":     "[tls]\nkey = \"c.key\"\n",
		"tls.cert is not": "[tls]\nclient_ca = \"c.key\"\n",
		"https://":        "public_url = \"http://cache.example.org\"\n" + tls,
	} {
		if _, err := Load(writeConfig(t, "data_dir = \"data\"\n"+lines)); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", words, err)
		}
	}
	c, err := Load(writeConfig(t, "data_dir = \"data\"\n"+tls+"client_ca = \"ca.pem\"\n"+ci))
	if err != nil {
		t.Fatal(err)
	}
	if rules := c.CertificateRules(); len(rules) != 1 || rules[0].Name() != "ci" || !c.TLS.On() {
		t.Errorf("%v", rules)
	}
	t.Run("reload", func(t *testing.T) {
		path := writeConfig(t, "data_dir = \"data\"\n"+tls)
		c, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		rewrite(t, path, "data_dir = \"data\"\n"+strings.Replace(tls, "c.pem", "d.pem", 1)+"client_ca = \"ca.pem\"\n"+ci)
		if files, rules, err := c.ReloadTLS(); err != nil || len(rules) != 1 || !strings.HasSuffix(files.Cert, "/d.pem") {
			t.Errorf("%v %v %v", files, rules, err)
		}
		rewrite(t, path, "data_dir = \"data\"\n")
		if _, _, err := c.ReloadTLS(); err == nil || !strings.Contains(err.Error(), "restart") {
			t.Errorf("%v", err)
		}
	})
}
