package configfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestLoad(t *testing.T) {
	type file struct {
		Name string   `toml:"name"`
		Wait Duration `toml:"wait"`
		Sub  struct {
			List []string `toml:"list"`
			Idle Duration `toml:"idle"`
		} `toml:"sub"`
		Each []struct {
			Name string   `toml:"name"`
			For  Duration `toml:"for"`
		} `toml:"each"`
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
		"name = \n":        "c.toml: line 1, column ",
		"name = 3\n":       "c.toml: line 1, column ",
		"wait = \"-1s\"\n": "is not a duration like",
		// What the decoder alone takes for nanoseconds.
		"wait = 120\n":                  "c.toml: wait: 120 is no duration: it has no unit, write \"120s\"",
		"wait = 1.5\n":                  "write \"1.5s\"",
		"WAIT = 120\n":                  "write \"120s\"",
		"wait = \"120\"\n":              "write \"120s\"",
		"sub.idle = 0\n":                "sub.idle: 0 is no duration: it has no unit, write \"0s\"",
		"[sub]\nidle = 30\n":            "sub.idle: 30 is no duration: it has no unit, write \"30s\"",
		"sub = { idle = 30 }\n":         "write \"30s\"",
		"[[each]]\n[[each]]\nfor = 1\n": "each.for: 1 is no duration: it has no unit, write \"1s\"",
		"each = [{ for = 900 }]\n":      "write \"900s\"",
		"wait = \"3 days\"\n":           "is not a duration like",
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

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{"90s": 90 * time.Second, "400d": 400 * 24 * time.Hour, "0d": 0, "1.5d": 36 * time.Hour, "1h30m": 90 * time.Minute} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || time.Duration(d) != want {
			t.Errorf("%s: %s, %v", text, time.Duration(d), err)
		}
	}
	for _, text := range []string{"", "d", "-1d", "999999d", "1d12h", "1hd", "-1s", "5"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is %s", text, time.Duration(d))
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1048576": 1 << 20, "1KiB": 1 << 10, "64 MiB": 64 << 20, "50GiB": 50 << 30, "2TiB": 2 << 40, "7B": 7,
		"4194303TiB": 4194303 << 40,
	} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || int64(s) != want {
			t.Errorf("%q is %d, %v; want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "GiB", "-1", "1GB", "1.5GiB", "1 GiB GiB", "9223372036854775807GiB", "4194305TiB", "0x10"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken for %d bytes", text, s)
		}
	}
}

// A secret is not for every user of the machine, by whatever name it is reached.
func TestReadable(t *testing.T) {
	open := t.TempDir()
	for dir := open; dir != filepath.Dir(dir); dir = filepath.Dir(dir) { // those that the test made
		if st, err := os.Stat(dir); err != nil || st.Mode()&0o001 == 0 && os.Chmod(dir, 0o755) != nil {
			t.Skipf("%s shuts others out: %v", dir, err)
		}
	}
	shut := filepath.Join(open, "shut", "within")
	if err := os.MkdirAll(shut, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name string, mode os.FileMode) string {
		t.Helper()
		if err := os.WriteFile(name, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	link := func(to, name string) string {
		t.Helper()
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
		return name
	}
	pipe := filepath.Join(open, "pipe")
	if err := syscall.Mkfifo(pipe, 0o666); err != nil {
		t.Fatal(err)
	}
	mine, theirs := write(filepath.Join(open, "mine"), 0o640), write(filepath.Join(open, "theirs"), 0o604)
	within := write(filepath.Join(shut, "theirs"), 0o644)
	if err := os.Chmod(filepath.Dir(shut), 0o750); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		mine: false, write(filepath.Join(open, "600"), 0o600): false, write(filepath.Join(open, "660"), 0o660): false,
		theirs: true, write(filepath.Join(open, "644"), 0o644): true, write(filepath.Join(open, "444"), 0o444): true,
		write(filepath.Join(open, "602"), 0o602): false,
		within:                                   false, pipe: false,
		link(theirs, filepath.Join(shut, "out")): true, link(within, filepath.Join(open, "in")): false, link(mine, filepath.Join(open, "link")): false,
	} {
		if got, err := Readable(name); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", name, got, err, want)
		}
	}
	if _, err := Readable(filepath.Join(open, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	t.Chdir(open)
	if got, err := Readable("theirs"); err != nil || !got {
		t.Errorf("by a name without a folder: %v, %v", got, err)
	}
	if err := CheckSecret(theirs, false, "c.toml"); err == nil || !strings.Contains(err.Error(), "chmod o-rwx "+theirs) || !strings.Contains(err.Error(), "allow_readable_secrets = true in c.toml") {
		t.Errorf("it is refused with %v", err)
	}
	if err := CheckSecret(theirs, true, "c.toml"); err != nil {
		t.Errorf("where that is allowed: %v", err)
	}
}
