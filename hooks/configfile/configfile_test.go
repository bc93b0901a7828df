package configfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLoad(t *testing.T) {
	type file struct {
		Name string   `toml:"name"`
		Wait Duration `toml:"wait"`
		Sub  struct {
			List []string `toml:"list"`
		} `toml:"sub"`
	}
	dir := t.TempDir()
	name := filepath.Join(dir, "c.toml")
	load := func(text string) (file, error) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f := file{Name: "default"}
		return f, Load(name, &f)
	}
	f, err := load("wait = \"90s\"\n[sub]\nlist = [\"a\"]\n")
	if err != nil || f.Name != "default" || time.Duration(f.Wait) != 90*time.Second || len(f.Sub.List) != 1 {
		t.Errorf("%+v, %v", f, err)
	}
	for text, says := range map[string]string{
		"name = \"x\"\nnaem = 1\n[sub]\nlost = 2\n": "c.toml: line 2: naem is not a key that narwharf knows; line 4: sub.lost is not a key",
		"name = \n":           "c.toml: line 1, column ",
		"name = 3\n":          "c.toml: line 1, column ",
		"wait = \"-1s\"\n":    "is not a duration like",
		"wait = \"3 days\"\n": "is not a duration like",
	} {
		if _, err := load(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want … %s …", text, err, says)
		}
	}
	if err := Load(filepath.Join(dir, "none"), &f); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestAbs(t *testing.T) {
	a, b, c := "keys/a.sec", "/b", ""
	Abs("/etc/narwharf/config.toml", &a, &b, &c)
	if a != "/etc/narwharf/keys/a.sec" || b != "/b" || c != "" {
		t.Error(a, b, c)
	}
}
