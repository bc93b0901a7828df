package nar

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func listing(t testing.TB, files ...file) *Node {
	t.Helper()
	root, err := List(bytes.NewReader(write(t, files...)), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestListJSON(t *testing.T) {
	for _, tt := range []struct {
		files []file
		want  string
	}{
		{[]file{dir("")}, `{"root":{"entries":{},"type":"directory"},"version":1}`},
		{[]file{plainFile("", "hello")}, `{"root":{"narOffset":96,"size":5,"type":"regular"},"version":1}`},
		{[]file{exeFile("", "")}, `{"root":{"executable":true,"narOffset":128,"size":0,"type":"regular"},"version":1}`},
		{[]file{link("", "../a\x01\x7f\"\\\b\f\n\r\té\u2028😀/<>&")},
			`{"root":{"target":"../a\u0001` + "\x7f" + `\"\\\b\f\n\r\té` + "\u2028" + `😀/<>&","type":"symlink"},"version":1}`},
		{[]file{dir(""), dir("a"), plainFile("a/f", "x"), dir("a/n"), dir("a/n/e"), dir("b"), link("b/l", "t"), plainFile("c", "")},
			`{"root":{"entries":{"a":{"entries":{"f":{"narOffset":368,"size":1,"type":"regular"},` +
				`"n":{"entries":{"e":{"entries":{},"type":"directory"}},"type":"directory"}},"type":"directory"},` +
				`"b":{"entries":{"l":{"target":"t","type":"symlink"}},"type":"directory"},` +
				`"c":{"narOffset":1288,"size":0,"type":"regular"}},"type":"directory"},"version":1}`},
	} {
		root := listing(t, tt.files...)
		got, err := root.AppendJSON([]byte("before "))
		if err != nil || string(got) != "before "+tt.want {
			t.Errorf("got  %s (%v)\nwant %s", got, err, tt.want)
		}
		if got, err := json.Marshal(root); err != nil || !json.Valid(got) {
			t.Errorf("json.Marshal gives %s (%v)", got, err)
		}
		back, err := ParseListing([]byte(tt.want))
		if err != nil || !reflect.DeepEqual(back, root) {
			t.Errorf("comes back as %+v (%v), want %+v", back, err, root)
		}
	}
}

func TestAppendJSONRefuses(t *testing.T) {
	for want, root := range map[string]*Node{
		`write nar listing: "caf\xe9" is not UTF-8`: listing(t, dir(""), plainFile("caf\xe9", "")),
		`write nar listing: "\xff" is not UTF-8`:    listing(t, dir(""), dir("a"), link("a/b", "\xff")),
		`the node "" is of no type`:                 {},
		`the node "a" is of no type`:                {Type: Directory, Entries: []Node{{Name: "a"}}},
	} {
		got, err := root.AppendJSON([]byte("before"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if string(got) != "before" {
			t.Errorf("%s: the destination is %q", want, got)
		}
	}
}

func TestLookup(t *testing.T) {
	root := listing(t, zoo()...)
	for path, want := range map[string]Type{
		"": Directory, "bin": Directory, "bin/run": Regular, "bin/up": Symlink, "deep/1/2/3/leaf": Regular, "unicode/日本語": Regular,
	} {
		if n := root.Lookup(path); n == nil || n.Type != want || n.Name != path[strings.LastIndexByte(path, '/')+1:] {
			t.Errorf("Lookup(%q) = %+v", path, n)
		}
	}
	for _, path := range []string{"/", "/bin", "bin/", "bin//run", "bi", "bin/run/x", "bin/up/x", ".", "..", "bin/../bin", "zzz"} {
		if n := root.Lookup(path); n != nil {
			t.Errorf("Lookup(%q) = %+v", path, n)
		}
	}
}

// A part is the whole without what does not matter for its path.
func TestParsePart(t *testing.T) {
	var some []file // what JSON can hold
	for _, f := range zoo() {
		if !strings.Contains(f.Path+f.Target, "\xff") {
			some = append(some, f)
		}
	}
	whole := listing(t, some...)
	text, err := whole.AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(some, dir("zzz"), dir("deep/none"), dir("bin/run/x")) {
		part, err := ParsePart(text, f.Path)
		if err != nil {
			t.Fatalf("%q: %v", f.Path, err)
		}
		got, want := part.Lookup(f.Path), whole.Lookup(f.Path)
		if got == nil || want == nil {
			if got != want {
				t.Errorf("%q: %+v, want %+v", f.Path, got, want)
			}
			continue
		}
		shallow := *want
		shallow.Entries = nil
		for _, e := range want.Entries {
			e.Entries = nil
			shallow.Entries = append(shallow.Entries, e)
		}
		if !reflect.DeepEqual(*got, shallow) {
			t.Errorf("%q: %+v, want %+v", f.Path, *got, shallow)
		}
	}
	if _, err := ParsePart(text[:len(text)-2], "bin"); err == nil {
		t.Error("a listing that is cut off is taken")
	}
}

// as other versions of Nix, and other programs, write it
func TestParseListingForms(t *testing.T) {
	want := listing(t, dir(""), plainFile("a", "xy"), link("é", "t"))
	for name, text := range map[string]string{
		"2.8":        `{"version":1,"root":{"type":"directory","entries":{"a":{"type":"regular","size":2,"narOffset":232},"é":{"type":"symlink","target":"t"}}}}`,
		"2.34":       `{"root":{"entries":{"a":{"narOffset":232,"size":2,"type":"regular"},"é":{"target":"t","type":"symlink"}},"type":"directory"},"version":1}`,
		"2.35":       `{"root":{"entries":{"a":{"executable":false,"narOffset":232,"size":2,"type":"regular"},"é":{"target":"t","type":"symlink"}},"type":"directory"},"version":1}`,
		"escaped":    `{"root":{"entries":{"\u0061":{"narOffset":232,"size":2,"type":"regul\u0061r"},"\u00E9":{"target":"t","type":"symlink"}},"type":"directory"},"version":1}`,
		"any order":  `{"root":{"entries":{"é":{"target":"t","type":"symlink"},"a":{"narOffset":232,"size":2,"type":"regular"}},"type":"directory"},"version":1}`,
		"spaced out": " {\n\t\"root\" : { \"entries\" : { \"a\" :\r{ \"narOffset\" : 232 , \"size\" : 2 , \"type\" : \"regular\" } , \"é\": { \"target\": \"t\" ,\"type\":\"symlink\"} } , \"type\":\"directory\" } , \"version\" : 1 } \n",
		"more keys": `{"by":[{"x":null},[],[1,-0.5e+3,1E2,0],true,false,"\"\ud83d\ude00"],"root":{"mtime":{},"entries":{"a":{"hash":"x","narOffset":232,"size":2,"type":"regular"},` +
			`"é":{"target":"t","type":"symlink"}},"type":"directory"},"version":1}`,
	} {
		got, err := ParseListing([]byte(text))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v (%v), want %+v", name, got, err, want)
		}
	}
	got, err := ParseListing([]byte(`{"root":{"size":9223372036854775807,"type":"regular"},"version":1}`))
	if err != nil || got.Size != 1<<63-1 || got.Offset != 0 {
		t.Errorf("without narOffset: %+v (%v)", got, err)
	}
	got, err = ParseListing([]byte(`{"root":{"target":"\"\\\/\b\f\n\r\t\ud83d\ude00\ufffd","type":"symlink"},"version":1}`))
	if err != nil || got.Target != "\"\\/\b\f\n\r\t😀\ufffd" {
		t.Errorf("escapes: %+v (%v)", got, err)
	}
	// Half a surrogate pair stands for nothing; no Nix writes one.
	for half, want := range map[string]string{`\ud83d`: "\ufffd", `\ude00\ud83d`: "\ufffd\ufffd", `\ud83d\u0061`: "\ufffda"} {
		got, err := ParseListing([]byte(`{"root":{"target":"` + half + `","type":"symlink"},"version":1}`))
		if err != nil || got.Target != want {
			t.Errorf("%s: %+v (%v)", half, got, err)
		}
	}
}

var badListings = []struct{ text, want string }{
	{``, "byte 0: unexpected EOF"},
	{`null`, "an object is expected"},
	{`[]`, "an object is expected"},
	{`{}`, `a listing without the key "root"`},
	{`{"version":1}`, `a listing without the key "root"`},
	{`{"root":ROOT}`, `a listing without the key "version"`},
	{`{"version":2,"root":ROOT}`, "this version is not known, only 1 is"},
	{`{"version":"1","root":ROOT}`, "a number is expected"},
	{`{"version":1,"version":1,"root":ROOT}`, `the key "version" stands twice`},
	{`{"version":1,"root":ROOT,"root":ROOT}`, `the key "root" stands twice`},
	{`{"version":1,"root":ROOT} x`, "there is more after the end of the listing"},
	{`{"version":1,"root":ROOT}{}`, "there is more after the end of the listing"},
	{`{"version":1,"root":ROOT`, "unexpected EOF"},
	{`{"version":1,"root":ROOT,}`, "invalid character '}'"},
	{`{"version" 1}`, "invalid character '1' after object key"},
	{`{"version":1,"root":null}`, "an object is expected"},
	{`{"version":1,"root":{}}`, `a node without the key "type"`},
	{`{"version":1,"root":{"type":"fifo"}}`, `the type "fifo" is not known`},
	{`{"version":1,"root":{"type":1}}`, "a string is expected"},
	{`{"version":1,"root":{"type":"directory"}}`, `a directory without the key "entries"`},
	{`{"version":1,"root":{"type":"directory","entries":[]}}`, "an object is expected"},
	{`{"version":1,"root":{"type":"directory","entries":{},"size":1}}`, `a directory with the key "size"`},
	{`{"version":1,"root":{"type":"directory","entries":{},"executable":false}}`, `with the key "executable"`},
	{`{"version":1,"root":{"type":"regular"}}`, `a regular file without the key "size"`},
	{`{"version":1,"root":{"type":"regular","size":1,"size":1}}`, `the key "size" stands twice`},
	{`{"version":1,"root":{"type":"regular","size":1,"target":"x"}}`, `a regular file with the key "target"`},
	{`{"version":1,"root":{"type":"regular","size":1,"executable":1}}`, "true or false is expected"},
	{`{"version":1,"root":{"type":"regular","size":-1}}`, `"-1" is not a whole number from 0 to 2^63-1`},
	{`{"version":1,"root":{"type":"regular","size":1.0}}`, "is not a whole number"},
	{`{"version":1,"root":{"type":"regular","size":1e3}}`, "is not a whole number"},
	{`{"version":1,"root":{"type":"regular","size":01}}`, "invalid character '1'"},
	{`{"version":1,"root":{"type":"regular","size":9223372036854775808}}`, "is not a whole number from 0"},
	{`{"version":1,"root":{"type":"regular","size":1,"narOffset":99999999999999999999}}`, "is not a whole number from 0"},
	{`{"version":1,"root":{"type":"symlink"}}`, `a symlink without the key "target"`},
	{`{"version":1,"root":{"type":"symlink","target":""}}`, "the target of the link is empty"},
	{`{"version":1,"root":{"type":"symlink","target":"a\u0000"}}`, "the target of the link contains a NUL byte"},
	{`{"version":1,"root":{"type":"symlink","target":"x","entries":{}}}`, `a symlink with the key "entries"`},
	{`DIR{"":ROOT}}}`, "the name is empty"},
	{`DIR{"..":ROOT}}}`, `the name ".." is not allowed`},
	{`DIR{"a\/b":ROOT}}}`, `the name "a/b" contains a slash or a NUL byte`},
	{`DIR{"\u0000":ROOT}}}`, `contains a slash or a NUL byte`},
	{`DIR{"a":ROOT,"b":ROOT,"\u0061":ROOT}}}`, `the key "a" stands twice`},
	{`DIR{"` + strings.Repeat("n", 256) + `":ROOT}}}`, "the name is 256 bytes long"},
	{`DIR{"a":ROOT,1`, "invalid character '1'"},
	{`DIR{"a` + "\n" + `":ROOT}}}`, "invalid character '\\n' in string"},
	{`DIR{"a\x":ROOT}}}`, "in string escape code"},
	{`DIR{"a\u12`, "unexpected EOF"},
	{`DIR{"a\u00g0":ROOT}}}`, "escape"},
	{`DIR{"a\`, "unexpected EOF"},
	{`DIR{"a`, "unexpected EOF"},
	{`DIR{"caf` + "\xe9" + `":ROOT}}}`, "this is not UTF-8"},
	{`{"x":`, "unexpected EOF"},
	{`{"x":nul}`, "invalid character '}' in literal null"},
	{`{"x":[1 2]}`, "after array element"},
	{`{"x":[1,]}`, "invalid character ']'"},
	{`{"x":-}`, "in numeric literal"},
	{`{"x":1.}`, "in numeric literal"},
	{`{"x":1e}`, "in exponent of numeric literal"},
	{`{"x":01}`, "invalid character '1'"},
	{`{"x":"` + "\x01" + `"}`, "invalid character '\\x01' in string"},
	{`{"x":` + strings.Repeat("[", 100_000), "exceeded max depth"},
	{`{"x":` + strings.Repeat(`{"x":`, 100_000), "exceeded max depth"},
	{`{"version":1,"root":` + strings.Repeat(`{"type":"directory","entries":{"d":`, 100_000), "it is 64 directories deep: nix accepts at most 63"},
}

func TestParseListingRefuses(t *testing.T) {
	long := strings.NewReplacer(
		"DIR", `{"version":1,"root":{"type":"directory","entries":`,
		"ROOT", `{"type":"regular","size":1}`,
	)
	for _, tt := range badListings {
		_, err := ParseListing([]byte(long.Replace(tt.text)))
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "malformed nar listing at byte ") {
			t.Errorf("%.100s\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
	// and every prefix of a good one
	text, err := listing(t, dir(""), dir("a"), exeFile("a/é\n", "x"), link("b", "x")).AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range text {
		if _, err := ParseListing(text[:n]); err == nil {
			t.Errorf("cut off after %d bytes it is accepted: %s", n, text[:n])
		}
	}
}
