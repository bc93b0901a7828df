package serverconfig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUpstreamSections(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"token": 0o600, "open": 0o644, "empty": 0o600} {
		text := "nwt_x\n"
		if name == "empty" {
			text = "\n"
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{dir, filepath.Dir(dir)} { // others may pass: the mode of the file counts
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const key = `public_keys = ["cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="]` + "\n"
	const up = "[[upstream]]\nurl = \"https://cache.nixos.org\"\n" + key
	const private = "[access]\nanonymous = []\n"
	for text, want := range map[string]string{
		up: "",
		up + "pull_through = false\nkeep = \"never\"\nsign = true\npublic = true":     "",
		up + "[[upstream]]\nurl = \"http://cache.lan/nix\"\n" + key:                   "",
		private + up + `token_file = "token"`:                                         "",
		up + "token_file = \"token\"\npublic = true":                                  "",
		up + `token_file = "token"`:                                                   "take pull out of access.anonymous, or say public = true",
		private + up + `token_file = "open"`:                                          "chmod o-rwx",
		private + up + `token_file = "empty"`:                                         "does not hold one token",
		private + up + `token_file = "none"`:                                          "token_file",
		"[[upstream]]\n" + key:                                                        "section 1 has no url",
		"[[upstream]]\nurl = \"ftp://x\"\n" + key:                                     "is not a URL like",
		"[[upstream]]\nurl = \"https://me:pw@x\"\n" + key:                             "token_file",
		"[[upstream]]\nurl = \"https://x?y=z\"\n" + key:                               "is not a URL like",
		"[[upstream]]\nurl = \"https://x\"\n":                                         "public_keys is empty",
		"[[upstream]]\nurl = \"https://x\"\npublic_keys = [\"x\"]\n":                  "public_keys: parse public key",
		up + `keep = "always"`:                                                        `neither "promoted" nor "never"`,
		up + `keeps = "never"`:                                                        "upstream.keeps is not a key",
		up + `pull_through = "yes"`:                                                   "pull_through",
		up + "rate = \"10MiB\"\n[mirror]\nchannels = [\"web\"]":                       "",
		up + "[mirror]\nchannels = [\"web\"]\nupstream = \"https://cache.nixos.org\"": "",
		up + "[mirror]\nchannels = [\"web\"]\nupstream = \"https://x\"":               "no [[upstream]] has the url",
		up + "[mirror]\nchannels = [\"web\", \"web\"]":                                "web is there twice",
		up + "[mirror]\nchannels = [\"we b\"]":                                        "mirror.channels",
		up + "[mirror]\nupstream = \"https://cache.nixos.org\"":                       "mirror.channels is empty",
		up + "rate = 100":                                                             "too little to be meant",
		"[mirror]\nchannels = [\"web\"]":                                              "there is no [[upstream]]",
		up + up:                                                                       "it is there twice",
		"public_url = \"https://cache.nixos.org/\"\n" + up:                            "this server itself",
	} {
		name := filepath.Join(dir, "config.toml")
		if err := os.WriteFile(name, []byte("data_dir = \"d\"\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(name)
		for i := 0; err == nil && i < len(c.Upstreams); i++ {
			_, err = c.Upstreams[i].Token()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v; want %q", text, err, want)
		}
	}
}

func TestUpstreamDefaults(t *testing.T) {
	name := filepath.Join(t.TempDir(), "config.toml")
	text := "data_dir = \"d\"\n[[upstream]]\nurl = \"https://cache.nixos.org/\"\npublic_keys = [\"cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=\"]\n"
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	u := c.Upstreams[0]
	token, err := u.Token()
	if !u.Pulls() || !u.Keeps() || u.Sign || u.Public || token != "" || err != nil || u.Where().String() != "https://cache.nixos.org" || len(u.Keys()) != 1 {
		t.Errorf("%+v, %q, %v", u, token, err)
	}
}
