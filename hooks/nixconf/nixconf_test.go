package nixconf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "more.conf"), "extra-substituters = https://b # and a comment\n")
	file := write(t, filepath.Join(dir, "nix.conf"), `
# a comment
substituters = https://a
include more.conf
!include none.conf
binary-cache-public-keys =   a-1:x    b-1:y
substitute = no
`)
	c := New()
	if err := c.Read(file); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"substituters": "https://a https://b", "trusted-public-keys": "a-1:x b-1:y", "substitute": "no", "require-sigs": "true", "netrc-file": "",
	} {
		if got := c.Value(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if c.Is("substitute") || !c.Is("require-sigs") {
		t.Error("what is true is not")
	}
	if at, said := c.Said("substituters"); !said || at != filepath.Join(dir, "more.conf") {
		t.Errorf("said in %q", at)
	}
	d := New()
	if err := d.Parse("extra-substituters = https://c", "x"); err != nil || d.Value("substituters") != "https://cache.nixos.org/ https://c" {
		t.Errorf("beside the default: %q, %v", d.Value("substituters"), err)
	}
	for text, says := range map[string]string{"nonsense": "NAME = VALUE", "a b c": "NAME = VALUE", "include none.conf": "no such file", "include loop.conf": "ten deep"} {
		write(t, filepath.Join(dir, "loop.conf"), "include loop.conf")
		if err := New().Parse(text, filepath.Join(dir, "nix.conf")); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := New().Read(filepath.Join(dir, "none")); err != nil {
		t.Error(err)
	}
}

// machine is one with its files in a folder.
func machine(t *testing.T, env map[string]string, system, mine string) *Machine {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "etc", "nix.conf"), system)
	write(t, filepath.Join(dir, "config", "nix", "nix.conf"), mine)
	env["NIX_CONF_DIR"], env["XDG_CONFIG_HOME"], env["XDG_CONFIG_DIRS"] = filepath.Join(dir, "etc"), filepath.Join(dir, "config"), filepath.Join(dir, "none")
	m := &Machine{User: "alice", Groups: []string{"wheel"}, UID: 1000, home: dir, getenv: func(name string) string { return env[name] }}
	if err := m.load(); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestEffective(t *testing.T) {
	const url = "https://cache.example.org"
	for name, c := range map[string]struct {
		env          map[string]string
		system, mine string
		trusted, has bool
		key          string // the last one
		netrc        string
	}{
		"single user":          {mine: "extra-substituters = " + url + "/\nextra-trusted-public-keys = k:1\nnetrc-file = /n", trusted: true, has: true, key: "k:1", netrc: "/n"},
		"a daemon":             {env: map[string]string{"NIX_REMOTE": "daemon"}, mine: "extra-substituters = " + url + "\nextra-trusted-public-keys = k:1\nnetrc-file = /n"},
		"a substituter of it":  {env: map[string]string{"NIX_REMOTE": "daemon"}, system: "trusted-substituters = " + url, mine: "extra-substituters = " + url + "?priority=1\nextra-trusted-public-keys = k:1", has: true},
		"a trusted user":       {env: map[string]string{"NIX_REMOTE": "daemon"}, system: "trusted-users = root alice", mine: "extra-substituters = " + url + "\nextra-trusted-public-keys = k:1", trusted: true, has: true, key: "k:1"},
		"a trusted group":      {env: map[string]string{"NIX_REMOTE": "daemon"}, system: "trusted-users = root @wheel", mine: "extra-substituters = " + url, trusted: true, has: true},
		"another group":        {env: map[string]string{"NIX_REMOTE": "daemon"}, system: "trusted-users = root @alice", mine: "extra-substituters = " + url},
		"the environment":      {env: map[string]string{"NIX_CONFIG": "extra-substituters = " + url}, trusted: true, has: true},
		"other user files":     {env: map[string]string{"NIX_USER_CONF_FILES": "/dev/null"}, mine: "extra-substituters = " + url, trusted: true},
		"system, and a daemon": {env: map[string]string{"NIX_REMOTE": "daemon"}, system: "substituters = " + url + "\ntrusted-public-keys = k:1\nnetrc-file = /s", has: true, key: "k:1", netrc: "/s"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.env == nil {
				c.env = map[string]string{}
			}
			m := machine(t, c.env, c.system, c.mine)
			e := m.Effective()
			keys := e.List("trusted-public-keys")
			if has := Names(e.List("substituters"), url); m.Trusted() != c.trusted || has != c.has {
				t.Errorf("trusted %v, has %v: %v", m.Trusted(), has, e.List("substituters"))
			}
			if key := keys[len(keys)-1]; (c.key == "") != strings.HasPrefix(key, "cache.nixos.org-1:") || c.key != "" && key != c.key {
				t.Errorf("keys %v", keys)
			}
			if want := c.netrc; want == "" {
				c.netrc = filepath.Join(m.Dir, "netrc")
			}
			if m.Netrc() != c.netrc {
				t.Errorf("netrc %s, want %s", m.Netrc(), c.netrc)
			}
		})
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "nix", "nix.conf")
	const url = "https://cache.example.org"
	first := []string{"extra-substituters = " + url}
	second := []string{first[0], "extra-trusted-public-keys = k:1"}
	step := func(at string, lines []string, changes bool, want string) {
		t.Helper()
		changed, err := Write(file, at, lines)
		text, _ := os.ReadFile(file)
		if changed != changes || err != nil || string(text) != want {
			t.Errorf("changed %v, %v:\n%s\nwant\n%s", changed, err, text, want)
		}
	}
	begin, end := marks(url)
	one := begin + first[0] + "\n" + end
	two := begin + second[0] + "\n" + second[1] + "\n" + end
	step(url, first, true, one)
	step(url+"/", first, false, one)
	step(url, second, true, two)
	write(t, file, "# mine\nmax-jobs = 2\n"+one+"cores = 1")
	step(url, second, true, "# mine\nmax-jobs = 2\ncores = 1\n"+two)
	near := []string{first[0] + LAN}
	step(url+LAN, near, true, "# mine\nmax-jobs = 2\ncores = 1\n"+begin+near[0]+"\n"+end)
	step(url, second, true, "# mine\nmax-jobs = 2\ncores = 1\n"+two)
	step("https://other", first, true, "# mine\nmax-jobs = 2\ncores = 1\n"+two+strings.ReplaceAll(one, "use "+url, "use https://other"))
	step("https://other", nil, true, "# mine\nmax-jobs = 2\ncores = 1\n"+two)
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("%v", st.Mode())
	}
	if _, err := Write(file, url, []string{"a = b\nc = d"}); err == nil {
		t.Error("two lines in one")
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(link, url, first); err == nil || !strings.Contains(err.Error(), "what manages it") {
		t.Errorf("a link: %v", err)
	}
}

func TestSystemFile(t *testing.T) {
	m := machine(t, map[string]string{}, "!include nix.custom.conf\n", "")
	if file, err := m.SystemFile(); err != nil || filepath.Base(file) != "nix.custom.conf" {
		t.Errorf("Determinate's: %s, %v", file, err)
	}
	m = machine(t, map[string]string{}, "", "")
	if file, err := m.SystemFile(); err != nil || file != m.NixConf() {
		t.Errorf("%s, %v", file, err)
	}
	if err := os.Rename(m.NixConf(), m.NixConf()+"x"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(m.NixConf()+"x", m.NixConf()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.SystemFile(); err == nil {
		t.Error("a link of a manager's")
	}
}
