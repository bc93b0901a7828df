package login

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestNameServer(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "narwharf", "client.toml")
	for _, c := range []struct{ is, want string }{
		{"", "server = \"https://cache.example.org\"\n"},
		{"# mine\nserver   = 'https://old' # of old\norigin = \"x\"\n", "# mine\nserver   = \"https://cache.example.org\" # of old\norigin = \"x\"\n"},
		{"# mine\norigin = \"x\"\n", "server = \"https://cache.example.org\"\n# mine\norigin = \"x\"\n"},
	} {
		if c.is != "" {
			if err := os.WriteFile(file, []byte(c.is), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := NameServer(file, "https://cache.example.org"); err != nil {
				t.Fatal(err)
			}
			text, _ := os.ReadFile(file)
			if st, err := os.Stat(file); string(text) != c.want || err != nil || st.Mode() != 0o600 {
				t.Errorf("%q becomes %q, %v", c.is, text, st.Mode())
			}
		}
	}
	bad := "origin = \"\"\"\nserver = \"x\"\n\"\"\"\n"
	for text, says := range map[string]string{"server = \n": "cannot be read", bad: "write server = "} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := NameServer(file, "https://cache.example.org")
		if is, _ := os.ReadFile(file); err == nil || !strings.Contains(err.Error(), says) || string(is) != text {
			t.Errorf("%q: %v", text, err)
		}
	}
	link := filepath.Join(dir, "link.toml")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if err := NameServer(link, "https://cache.example.org"); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("a link: %v", err)
	}
}

// TestNixConfig: what else the variable has stays, also in a shell and for the steps of a job.
func TestNixConfig(t *testing.T) {
	was := "experimental-features = nix-command flakes\n\nnetrc-file = /old\naccess-tokens = github.com=it's"
	want := "experimental-features = nix-command flakes\naccess-tokens = github.com=it's\nnetrc-file = /home/a b/netrc"
	got := NixConfig(was, "/home/a b/netrc")
	if got != want {
		t.Errorf("%q", got)
	}
	out, err := exec.Command("sh", "-c", `eval "$1"; printf %s "$NIX_CONFIG"`, "sh", Export("NIX_CONFIG", got)).Output()
	if err != nil || string(out) != want {
		t.Errorf("a shell has %q, %v", out, err)
	}
	file := filepath.Join(t.TempDir(), "env")
	if err := TellActions(file, "NIX_CONFIG", got); err == nil {
		t.Error("a file was made")
	}
	if err := os.WriteFile(file, []byte("A=b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := TellActions(file, "NIX_CONFIG", got); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(file); string(text) != "A=b\nNIX_CONFIG<<narwharf-end\n"+want+"\nnarwharf-end\n" {
		t.Errorf("%s", text)
	}
}
