package plan

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"narwharf/narinfo"
	"narwharf/signing"
)

func TestSplit(t *testing.T) {
	for name, want := range map[string][2]string{
		"firefox-78.0":               {"firefox", "78.0"},
		"glibc-2.38-44-bin":          {"glibc", "2.38-44"},
		"linux-6.6.30-modules":       {"linux", "6.6.30"},
		"python3.11-requests-2.31.0": {"python3.11-requests", "2.31.0"},
		"nixos-system-web-25.11pre7": {"nixos-system-web", "25.11pre7"},
		"etc":                        {"etc", ""},
		"unit-sshd.service":          {"unit-sshd.service", ""},
		"source":                     {"source", ""},
		"bash-5.2p26-man":            {"bash", "5.2p26"},
		"a-":                         {"a-", ""},
	} {
		if pkg, version := split(name); pkg != want[0] || version != want[1] {
			t.Errorf("%s: %q %q, want %q", name, pkg, version, want)
		}
	}
}

// The examples of builtins.compareVersions' manual and tests.
func TestCompare(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"1.0", "2.3", -1}, {"2.1", "2.3", -1}, {"2.3", "2.3", 0}, {"2.5", "2.3", 1}, {"3.1", "2.3", 1},
		{"2.3.1", "2.3", 1}, {"2.3.1", "2.3a", 1}, {"2.3pre1", "2.3", -1}, {"2.3pre3", "2.3pre12", -1},
		{"2.3a", "2.3c", -1}, {"2.3pre1", "2.3c", -1}, {"2.3pre1", "2.3q", -1}, {"1.01", "1.1", 0},
		{"99999999999999999999", "99999999999999999998", 1}, {"", "1", -1}, {"1.", "1", 0},
	} {
		if got := compare(c.a, c.b); got != c.want {
			t.Errorf("%q with %q: %d, want %d", c.a, c.b, got, c.want)
		}
		if got := compare(c.b, c.a); got != -c.want {
			t.Errorf("%q with %q: %d, want %d", c.b, c.a, got, -c.want)
		}
	}
}

// closureOf makes a manifest of names with sizes; the first refers to all others.
func closureOf(t testing.TB, sizes map[string]int64, root string) *signing.Manifest {
	t.Helper()
	var infos []*narinfo.Info
	var refs []narinfo.Path
	for name, size := range sizes {
		sum := narinfo.Hash(sha256.Sum256(fmt.Append(nil, name, size)))
		i := &narinfo.Info{StoreDir: "/nix/store", Path: narinfo.Path(sum.Base32()[20:] + "-" + name), NarHash: sum, NarSize: size}
		infos = append(infos, i)
		if name != root {
			refs = append(refs, i.Path)
		}
	}
	for _, i := range infos {
		if i.Path.Name() == root {
			i.References = refs
		}
	}
	m, err := signing.NewManifest(infos)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestPackages(t *testing.T) {
	before := closureOf(t, map[string]int64{"system": 10, "firefox-78.0": 100_000, "gone-1": 5, "glibc-2.38": 1000, "glibc-2.38-bin": 1000, "same-1": 7, "rebuilt-1": 100, "odd-2": 9}, "system")
	after := closureOf(t, map[string]int64{"system": 11, "firefox-79.0": 150_000, "new": 6, "glibc-2.38": 1000, "glibc-2.39": 3000, "same-1": 7, "rebuilt-1": 20_100, "odd-1": 9}, "system")
	got := ""
	for _, p := range packages(before, after) {
		got += fmt.Sprintf("%s %q → %q %+d %v\n", p.Name, p.Before, p.After, p.Bytes, p.Older)
	}
	want := `firefox ["78.0"] → ["79.0"] +50000 false
rebuilt ["1"] → ["1"] +20000 false
glibc ["2.38"] → ["2.38" "2.39"] +2000 false
new [] → [""] +6 false
gone ["1"] → [] -5 false
odd ["2"] → ["1"] +0 true
`
	if got != want {
		t.Errorf("it says\n%s\nwant\n%s", got, want)
	}
}
