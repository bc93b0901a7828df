package client

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"narwharf/hooks/nixconf"
	"narwharf/signing"
)

// TestPlan: where lines and password go, by who asks and where.
func TestPlan(t *testing.T) {
	key, err := signing.GenerateKey("k-1")
	if err != nil {
		t.Fatal(err)
	}
	keys := []signing.PublicKey{key.Public()}
	for name, c := range map[string]struct {
		env     map[string]string
		uid     int
		conf    string
		private bool
		file    string // below NIX_CONF_DIR or the home
		netrc   string
		says    string
	}{
		"root":             {uid: 0, file: "etc/nix.conf"},
		"root, private":    {uid: 0, private: true, file: "etc/nix.conf", netrc: "etc/netrc"},
		"root, elsewhere":  {uid: 0, private: true, conf: "netrc-file = /else", file: "etc/nix.conf", netrc: "/else"},
		"Determinate":      {uid: 0, conf: "!include nix.custom.conf", file: "etc/nix.custom.conf"},
		"a user":           {uid: 1000, file: "config/nix/nix.conf"},
		"a user, private":  {uid: 1000, private: true, file: "config/nix/nix.conf", netrc: "/mine"},
		"beside a daemon":  {uid: 1000, env: map[string]string{"NIX_REMOTE": "daemon"}, says: "sudo narwharf use"},
		"trusted by one":   {uid: 1000, env: map[string]string{"NIX_REMOTE": "daemon"}, conf: "trusted-users = *", file: "config/nix/nix.conf"},
		"who says a netrc": {uid: 1000, private: true, env: map[string]string{"NIX_CONFIG": "netrc-file = /my/own"}, file: "config/nix/nix.conf", netrc: "/my/own"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "etc", "nix.conf"), []byte(c.conf+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"NIX_REMOTE", "NIX_CONFIG", "NIX_USER_CONF_FILES"} {
				t.Setenv(name, c.env[name])
			}
			t.Setenv("NIX_CONF_DIR", filepath.Join(dir, "etc"))
			t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "config"))
			t.Setenv("NIX_STATE_DIR", dir)
			m, err := nixconf.Load()
			if err != nil {
				t.Fatal(err)
			}
			m.UID, m.User = c.uid, "alice"
			p, err := NewPlan(m, "https://cache.example.org/", keys, c.private, "/mine")
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			netrc := strings.TrimPrefix(p.Netrc, dir+"/")
			if p.File != filepath.Join(dir, c.file) || netrc != c.netrc || len(p.Lines) < 2 || p.Lines[0] != "extra-substituters = https://cache.example.org" {
				t.Errorf("%+v", p)
			}
			if own := netrc == "/mine"; own != strings.Contains(strings.Join(p.Lines, "\n"), "netrc-file = /mine") {
				t.Errorf("%+v", p)
			}
		})
	}
	p := new(Plan)
	p.nixos(keys, true)
	if text := strings.Join(p.NixOS, "\n"); p.File != "" || !strings.Contains(text, `extra-trusted-public-keys = [ "k-1:`) || !strings.Contains(strings.Join(p.Then, "\n"), "--system") {
		t.Errorf("%+v", p)
	}
}
