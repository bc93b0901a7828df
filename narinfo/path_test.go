package narinfo

import (
	"strings"
	"testing"
)

const someHash = "n9i3ks80yqb6cvn0h1pkz1l8xqwdjbv4"

// nameCases are names of store paths and whether Nix 2.34 takes them; nix_test
// asks Nix itself.
var nameCases = []struct {
	name string
	good bool
}{
	{"a", true},
	{"hello-2.12.1", true},
	{"0", true},
	{"-", true},
	{"-a", true},
	{"+_?=", true},
	{"a.b", true},
	{".a", true},
	{".gitignore", true},
	{"..a", true},
	{"...", true},
	{"...-a", true},
	{".+", true},
	{"a-.", true},
	{"a-..-b", true},
	{strings.Repeat("x", 211), true},
	{"." + strings.Repeat("x", 210), true},

	{"", false},
	{".", false},
	{"..", false},
	{".-", false},
	{".-a", false},
	{"..-", false},
	{"..-a", false},
	{strings.Repeat("x", 212), false},
	{"." + strings.Repeat("x", 211), false},
	{"a b", false},
	{"a~", false},
	{"ä", false},
	{"a:b", false},
	{".a!", false},
	{"a\n", false},
}

func TestNames(t *testing.T) {
	for _, c := range nameCases {
		base := someHash + "-" + c.name
		p, err := ParseBase(base)
		if (err == nil) != c.good {
			t.Errorf("ParseBase(%q): %v", base, err)
		}
		if full, err2 := ParsePath("/nix/store", "/nix/store/"+base); (err2 == nil) != c.good || full != p {
			t.Errorf("ParsePath of %q: %v", base, err2)
		}
		if err == nil && (p.Hash() != someHash || p.Name() != c.name || p.In("/gnu/store") != "/gnu/store/"+base) {
			t.Errorf("%q: parts %q %q", base, p.Hash(), p.Name())
		}
	}
}

func TestParsePathRefuses(t *testing.T) {
	const base = someHash + "-hello"
	for _, c := range []struct{ in, want string }{
		{"", `store path "" is not directly in "/nix/store"`},
		{base, `store path "` + base + `" is not directly in "/nix/store"`},
		{"/nix/store", `store path "/nix/store" is not directly in "/nix/store"`},
		{"/nix/storex" + base, `store path "/nix/storex` + base + `" is not directly in "/nix/store"`},
		{"/gnu/store/" + base, `store path "/gnu/store/` + base + `" is not directly in "/nix/store"`},
		{"/nix/store/", `store path "/nix/store/": it must be 32 characters of hash, a dash and a name`},
		{"/nix/store//" + base, `store path "/nix/store//` + base + `": it must be a base name without any directory`},
		{"/nix/store/" + base + "/bin", `store path "/nix/store/` + base + `/bin": it must be a base name without any directory`},
		{"/nix/store/" + base + "/", `store path "/nix/store/` + base + `/": it must be a base name without any directory`},
		{"/nix/store/" + someHash, `store path "/nix/store/` + someHash + `": it must be 32 characters of hash, a dash and a name`},
		{"/nix/store/" + someHash + "-", `store path "/nix/store/` + someHash + `-": its name is empty`},
		{"/nix/store/" + someHash + "-.", `store path "/nix/store/` + someHash + `-.": its name must not start with the component "."`},
		{"/nix/store/" + someHash + "-..-x", `store path "/nix/store/` + someHash + `-..-x": its name must not start with the component ".."`},
		{"/nix/store/" + someHash + "-a\x00", `store path "/nix/store/` + someHash + `-a\x00": its name has "\x00", which store paths may not have`},
		{"/nix/store/" + someHash + "-" + strings.Repeat("x", 212), `store path "/nix/store/` + someHash + `-` + `x…` + strings.Repeat("x", 45) + `": its name has 212 characters, more than 211`},
		{"/nix/store/N" + base[1:], `store path "/nix/store/N` + base[1:] + `": its hash has "N", which is not in Nix's base-32 alphabet (digits and lower-case letters without e, o, t, u)`},
	} {
		p, err := ParsePath("/nix/store", c.in)
		if err == nil || err.Error() != c.want || p != "" {
			t.Errorf("ParsePath(%q) = %q\ngot  %v\nwant %s", c.in, p, err, c.want)
		}
	}
	if _, err := ParseBase("x"); err == nil || err.Error() != `store path name "x": it must be 32 characters of hash, a dash and a name` {
		t.Error(err)
	}
}

func TestValidHash(t *testing.T) {
	for s, want := range map[string]bool{
		someHash:                      true,
		strings.Repeat("z", 32):       true,
		strings.Repeat("0", 32):       true,
		"":                            false,
		someHash[1:]:                  false,
		someHash + "0":                false,
		someHash[1:] + "e":            false,
		someHash[1:] + "Z":            false,
		someHash[1:] + "/":            false,
		someHash[:30] + "é":           false,
		someHash[1:] + "\x00":         false,
		"../../../../../../etc/passw": false,
	} {
		if ValidHash(s) != want {
			t.Errorf("ValidHash(%q) = %v", s, !want)
		}
	}
}

func TestZeroPath(t *testing.T) {
	if p := Path(""); p.Hash() != "" || p.Name() != "" {
		t.Error("the zero Path has parts")
	}
	if p := Path(someHash); p.Hash() != someHash || p.Name() != "" {
		t.Error("a bare hash has a name")
	}
}
