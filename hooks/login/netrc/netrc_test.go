package netrc

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestSet(t *testing.T) {
	const line = "machine cache.example.org login narwharf password nwt_new\n"
	for name, c := range map[string]struct{ is, want string }{
		"nothing":            {"", line},
		"another":            {"machine a login b password c\n", "machine a login b password c\n" + line},
		"no line end":        {"machine a login b password c", "machine a login b password c\n" + line},
		"itself":             {"machine cache.example.org login x password old\n", line},
		"itself, in lines":   {"machine cache.example.org\n\tlogin x\n  password old\n", line},
		"between others":     {"machine a password b\nmachine cache.example.org password old\nmachine c password d\n", "machine a password b\n" + line + "machine c password d\n"},
		"twice":              {"machine cache.example.org password 1\nmachine a password b\nmachine cache.example.org login z password 2\n", line + "machine a password b\n"},
		"comments":           {"# mine\nmachine cache.example.org # no comment\n# of 2025\npassword old\n# end\n", "# mine\n" + line + "# of 2025\n# end\n"},
		"default":            {"machine a password b\ndefault login anonymous password x\n", "machine a password b\n" + line + "default login anonymous password x\n"},
		"one line":           {"machine a password b machine cache.example.org password old machine c password d\n", "machine a password b \n" + line + "machine c password d\n"},
		"words that are it":  {"machine a login machine password default account cache.example.org\n", "machine a login machine password default account cache.example.org\n" + line},
		"quotes":             {"machine a password \"b machine cache.example.org \\\" x\"\n", "machine a password \"b machine cache.example.org \\\" x\"\n" + line},
		"a macro":            {"machine a password b\nmacdef init\nmachine cache.example.org\n\nmachine c password d\n", "machine a password b\nmacdef init\nmachine cache.example.org\n\nmachine c password d\n" + line},
		"a macro at the end": {"machine a password b\nmacdef init\ncd /", line + "machine a password b\nmacdef init\ncd /"},
		"a longer name":      {"machine cache.example.org.evil password x\n", "machine cache.example.org.evil password x\n" + line},
	} {
		file := filepath.Join(t.TempDir(), "netrc")
		if err := os.WriteFile(file, []byte(c.is), 0o644); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time there is nothing left to do
			if err := Set(file, "cache.example.org", "narwharf", "nwt_new"); err != nil {
				t.Fatal(err)
			}
			if text, _ := os.ReadFile(file); string(text) != c.want {
				t.Errorf("%s: it is\n%s\nand not\n%s", name, text, c.want)
			}
		}
		if p, err := Password(file, "cache.example.org"); p != "nwt_new" || err != nil {
			t.Errorf("%s: the password is %q, %v", name, p, err)
		}
		if st, err := os.Stat(file); err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
		found, err := Remove(file, "cache.example.org")
		text, _ := os.ReadFile(file)
		if !found || err != nil || strings.Contains(string(text), "nwt_new") {
			t.Errorf("%s: %v, %v, %s", name, found, err, text)
		}
		for _, other := range []string{"# of 2025", "# end", "password b\n", "password d", "default login anonymous", "cd /"} {
			if strings.Contains(c.is, other) && !strings.Contains(string(text), strings.TrimSpace(other)) {
				t.Errorf("%s: %s is gone: %s", name, other, text)
			}
		}
		if found, err := Remove(file, "cache.example.org"); found || err != nil {
			t.Errorf("%s: again: %v, %v", name, found, err)
		}
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "netrc"), filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if err := Set(link, "a", "b", "c"); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("a link: %v", err)
	}
	if _, err := os.Lstat(file); err == nil {
		t.Error("the link was followed")
	}
	if _, err := Remove(link, "a"); err == nil {
		t.Error("a link was followed")
	}
	if err := Set(dir, "a", "b", "c"); err == nil {
		t.Error("a folder is a file")
	}
	for _, words := range [][3]string{{"a b", "c", "d"}, {"a", "", "d"}, {"a", "b", "c\nmachine evil"}, {"a", "b", strings.Repeat("x", MaxPassword+1)}, {"#a", "b", "c"}, {"a", "b", "\"c"}} {
		if err := Set(file, words[0], words[1], words[2]); err == nil {
			t.Errorf("%.40q is taken", words)
		}
	}
	if found, err := Remove(filepath.Join(dir, "none", "netrc"), "a"); found || err != nil {
		t.Errorf("of no file: %v, %v", found, err)
	}
	if p, err := Password(filepath.Join(dir, "none"), "a"); p != "" || err != nil {
		t.Errorf("of no file: %q, %v", p, err)
	}
	if err := os.WriteFile(file, []byte("machine a password b"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) }) // or it cannot be removed
	if os.Getuid() != 0 {
		if err := Set(file, "c", "d", "e"); err == nil {
			t.Error("written to a folder that cannot be written to")
		}
	}
	if p, _ := Password(file, "a"); p != "b" {
		t.Errorf("what could not be changed has %q", p)
	}
}

// TestAtOnce: nobody's line is lost.
func TestAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "netrc")
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := Set(file, fmt.Sprint("m", i), "x", fmt.Sprint("p", i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range 20 {
		if p, err := Password(file, fmt.Sprint("m", i)); p != fmt.Sprint("p", i) || err != nil {
			t.Errorf("m%d has %q, %v", i, p, err)
		}
	}
}

func FuzzWithout(f *testing.F) {
	f.Add("machine a login b password c\n# x\nmachine b\nmacdef m\nx\n\ndefault password d")
	f.Add("\"machine\" a machine \"a\\")
	f.Fuzz(func(t *testing.T, text string) {
		others := make(map[string]string)
		for _, e := range parse([]byte(text)) {
			if _, twice := others[e.machine]; !twice && e.machine != "a" {
				others[e.machine] = e.password
			}
		}
		left, _ := without([]byte(text), "a")
		for _, e := range parse(left) {
			if e.machine == "a" {
				t.Errorf("%q has it still: %q", text, left)
			}
		}
	})
}
