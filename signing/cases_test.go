package signing

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"narwharf/narinfo"
)

// A testCase is one text that every reader takes, or none.
type testCase struct {
	what, name string
	text       []byte
	says       string // part of our error; "" if the text is valid
	trust      *Trust // for envelopes and pointers, instead of two of three
}

// cases are collected by the functions of cases_*_test.go.
type cases struct {
	t    testing.TB
	what string
	base []byte
	list []testCase
}

func (c *cases) of(what string, base []byte) { c.what, c.base = what, base }

// is adds a text; says is empty if it is valid.
func (c *cases) is(name string, text []byte, says string) {
	c.list = append(c.list, testCase{what: c.what, name: name, text: text, says: says})
}

// edit adds the base with one part replaced.
func (c *cases) edit(name, old, with, says string) {
	c.t.Helper()
	c.is(name, edit(c.t, c.base, old, with), says)
}

func allCases(t testing.TB) []testCase {
	c := &cases{t: t}
	headCases(c)
	entryCases(c)
	envelopeCases(c)
	pointerCases(c)
	releaseCases(c)
	manifestCases(c)
	return c.list
}

func headCases(c *cases) {
	c.of("head", testRelease(c.t, nil, "db-1").Head.Payload)
	c.is("as made", c.base, "")
	_, rest, _ := strings.Cut(string(c.base), `"root":"`)
	root := rest[:len("sha256:")+64]
	long := func(n int) string { return strings.Repeat("a", n) }

	c.edit("order of names, white space, escapes in names", `{"v":1,`, "\n{ \"s\\u0065q\" : 42 ,\t\"v\":1,\r\n", "stands there twice")
	c.is("white space and escapes", []byte(strings.NewReplacer(`{"v":1`, "\n{ \"v\" :\t1", `"seq"`, `"s\u0065q"`).Replace(string(c.base))), "")
	c.edit("another order of names", `{"v":1,"origin":"cache.example.org/prod"`, `{"origin":"cache.example.org/prod","v":1`, "")
	c.edit("an unknown name", `"v":1`, `"v":1,"later":{"seq":7,"Seq":[true,null]}`, "")
	c.edit("never expires", `"2026-08-03T04:05:06Z"`, "null", "")
	c.edit("no order", `"order":1287,`, "", "")
	c.edit("a negative order", `1287`, "-1287", "")
	c.edit("the highest seq", `"seq":42`, `"seq":9007199254740991`, "")
	c.edit("meta: lines, and letters beyond the BMP", `0123abc`, `a\nb\tc 😀\ud83d\ude00`, "")
	c.edit("an empty meta", `{"by":"Zoë \u003czoe@example.org\u003e","rev":"0123abc"}`, "{}", "")
	c.edit("a long origin", "cache.example.org/prod", "h:8443/a/b/c/d/e/f/g/h", "")
	c.edit("Y9999", "2026-08-03", "9999-12-31", "")

	c.is("nothing", nil, "an object has to stand here")
	c.is("an empty object", []byte("{}"), "v is missing")
	c.is("null", []byte("null"), "an object has to stand here")
	c.is("a list of it", []byte("["+string(c.base)+"]"), "an object has to stand here")
	c.is("two of it", append(bytes.Clone(c.base), c.base...), "something follows")
	c.is("a byte order mark", append([]byte("\xef\xbb\xbf"), c.base...), "an object has to stand here")
	c.is("cut short", c.base[:len(c.base)-1], "is missing")
	c.is("too long", append(bytes.Clone(c.base), bytes.Repeat([]byte(" "), maxHead)...), "at most")
	c.edit("a name twice", `"seq":42`, `"seq":41,"seq":42`, "stands there twice")
	c.edit("a name twice with the same value", `"seq":42`, `"seq":42,"seq":42`, "stands there twice")
	c.edit("a name twice, once in escapes", `"seq":42`, `"seq":42,"\u0073eq":41`, "stands there twice")
	c.edit("a name twice in targets", `"count":1`, `"count":1,"count":1`, "stands there twice")
	c.edit("a name twice in meta", `"by"`, `"rev":"x","by"`, "stands there twice")
	c.edit("a name twice in an unknown object", `"v":1`, `"v":1,"later":{"a":1,"a":2}`, "stands there twice")
	c.edit("a known name in another case", `"seq":42`, `"seq":42,"Seq":41`, "is not the name of a field")
	c.edit("only in another case", `"seq"`, `"SEQ"`, "is not the name of a field")
	c.edit("a name that folds to a known one", `"seq":42`, `"seq":42,"ſeq":41`, "is not the name of a field")
	c.edit("another case in targets", `"root"`, `"Root"`, "is not the name of a field")
	c.edit("critical", `"v":1`, `"v":1,"crit":["later"],"later":1`, `it needs "later"`)
	c.edit("critical in targets", `"count"`, `"crit":["x"],"count"`, `targets: it needs "x"`)
	c.edit("an empty crit", `"v":1`, `"v":1,"crit":[]`, "it needs something")
	c.edit("version 2", `"v":1`, `"v":2`, "version 2 is not known")
	c.edit("version 0", `"v":1`, `"v":0`, "version 0 is not known")
	c.edit("version 1 as a string", `"v":1`, `"v":"1"`, "v is not a whole number")
	c.edit("no version", `"v":1,`, "", "v is missing")
	for _, name := range []string{"origin", "channel", "seq", "targets", "rollback", "created", "expires"} {
		c.edit("no "+name, `"`+name+`":`, `"no`+name+`":`, name+" is missing")
	}
	for _, name := range []string{"origin", "channel", "seq", "targets", "rollback", "created", "order", "meta"} {
		at := bytes.Index(c.base, []byte(`"`+name+`":`)) + len(name) + 3
		c.is(name+" is null", []byte(string(c.base[:at])+`null,"x`+name+`":`+string(c.base[at:])), name+" is not")
	}
	c.edit("seq 0", `"seq":42`, `"seq":0`, "seq 0 is not between")
	c.edit("a negative seq", `"seq":42`, `"seq":-42`, "seq -42 is not between")
	c.edit("seq as a string", `"seq":42`, `"seq":"42"`, "seq is not a whole number")
	c.edit("seq with a fraction", `"seq":42`, `"seq":42.0`, "not a whole number")
	c.edit("seq with an exponent", `"seq":42`, `"seq":42e0`, "not a whole number")
	c.edit("seq with a leading zero", `"seq":42`, `"seq":042`, "not a whole number")
	c.edit("seq 2^53", `"seq":42`, `"seq":9007199254740992`, "not a whole number")
	c.edit("seq 2^64+42", `"seq":42`, `"seq":18446744073709551658`, "not a whole number")
	c.edit("a minus zero", "1287", "-0", "not a whole number")
	c.edit("order 2^53", "1287", "9007199254740992", "not a whole number")
	c.edit("a large number somewhere", `"v":1`, `"v":1,"later":1e999`, "not a whole number")
	c.edit("a fraction somewhere", `"v":1`, `"v":1,"later":[0.5]`, "not a whole number")
	c.edit("rollback as a number", "false", "0", "rollback is not true or false")
	c.edit("rollback as a string", "false", `"false"`, "rollback is not true or false")
	c.edit("a count of 0", `"count":1`, `"count":0`, "0 targets")
	c.edit("a negative count", `"count":1`, `"count":-1`, "-1 targets")
	c.edit("too many targets", `"count":1`, `"count":100001`, "100001 targets")
	c.edit("targets as a list", `{"count":1,"root":"`+root+`"}`, `[1,"`+root+`"]`, "targets is not an object")
	c.edit("a root of zeros", root, "sha256:"+strings.Repeat("0", 64), "targets.root is missing")
	c.edit("a root in upper case", root, "sha256:"+strings.ToUpper(root[7:]), "is not sha256:")
	c.edit("a root without its prefix", root, root[7:], "is not sha256:")
	c.edit("a root of another algorithm", "sha256:", "sha512:", "is not sha256:")
	c.edit("a short root", root, root[:70], "is not sha256:")
	c.edit("a root in nix32", root, "sha256:"+strings.Repeat("0", 51)+"1", "is not sha256:")
	for _, bad := range []string{
		"2026-02-03T04:05:06+00:00", "2026-02-03T04:05:06.000Z", "2026-02-03T04:05:06.5Z", "2026-02-03T04:05:06", "2026-02-03t04:05:06z",
		"2026-02-03 04:05:06Z", "2026-02-30T04:05:06Z", "2026-02-03T24:00:00Z", "2026-02-03T23:59:60Z", "2026-2-3T4:5:6Z", "2026-02-03",
		"2026-02-03T04:05:06Z ", "2026-02-03T04:05:06,5Z", "02026-02-03T04:05:06Z", "20260203T040506Z", "",
	} {
		c.edit(fmt.Sprintf("created %q", bad), "2026-02-03T04:05:06Z", bad, "is not a time like")
	}
	c.edit("created as a number", `"2026-02-03T04:05:06Z"`, "1770091506", "created is not a string")
	c.edit("created before 1970", "2026-02-03", "1969-12-31", "created is missing, before 1970")
	c.edit("created in the year 1", "2026-02-03T04:05:06", "0001-01-01T00:00:00", "created is missing, before 1970")
	c.edit("expires with an offset", "2026-08-03T04:05:06Z", "2026-08-03T04:05:06+01:00", "is not a time like")
	c.edit("expires when created", "2026-08-03", "2026-02-03", "expires before it was created")
	c.edit("expires as false", `"2026-08-03T04:05:06Z"`, "false", "expires is not a string")
	for _, bad := range []string{"", "prod", "cache.example.org", "cache.example.org/", "/prod", "cache.example.org//prod", "https://cache.example.org/prod", "cache.example.org/prod/", "cache.example.org/pröd", "-cache/prod", "cache.example.org/.prod", "c/1/2/3/4/5/6/7/8/9", long(254) + "/prod", `cache.example.org/prod\n`} {
		c.edit(fmt.Sprintf("origin %q", bad), "cache.example.org/prod", bad, "is not like cache.example.org/prod")
	}
	for _, bad := range []string{"", "Prod", "-prod", ".prod", "pr/od", "pr od", "pröd", long(64), `prod\n`, "*"} {
		c.edit(fmt.Sprintf("channel %q", bad), `"channel":"prod"`, `"channel":"`+bad+`"`, "is not a channel name")
	}
	for _, bad := range []string{"", " ", "-x", "a b", "ä", long(64), `a\u0000`} {
		c.edit(fmt.Sprintf("meta with the name %q", bad), `"rev"`, `"`+bad+`"`, "is not a name")
	}
	c.edit("meta as a list", `{"by":"Zoë \u003czoe@example.org\u003e","rev":"0123abc"}`, `["rev"]`, "meta is not an object")
	c.edit("a number in meta", `"0123abc"`, "123", `meta: "rev" is not a string`)
	c.edit("an object in meta", `"0123abc"`, "{}", `meta: "rev" is not a string`)
	c.edit("an escape sequence in meta", "0123abc", `\u001b[2J`, "control character U+001B")
	c.edit("a C1 control in meta", "0123abc", `\u009b2J`, "control character U+009B")
	c.edit("a DEL in meta", "0123abc", `\u007f`, "control character U+007F")
	c.edit("a change of direction in meta", "0123abc", `\u202ecba`, "control character U+202E")
	c.edit("a long value in meta", "0123abc", long(maxValue+1), "at most 1024")
	var many strings.Builder
	for i := range maxMeta {
		fmt.Fprintf(&many, `"m%d":"",`, i)
	}
	c.edit("too much meta", `"rev"`, many.String()+`"rev"`, "34 fields of meta")
	c.edit("not UTF-8", "0123abc", "\xff", "not UTF-8")
	c.edit("an overlong encoding", "0123abc", "\xc0\xaf", "not UTF-8")
	c.edit("a surrogate in UTF-8", "0123abc", "\xed\xa0\x80", "not UTF-8")
	c.edit("half of a surrogate pair", "0123abc", `\ud83d`, "surrogate")
	c.edit("a line break in a string", "0123abc", "a\nb", "control character")
	c.edit("a comment", `{"v":1`, `{/* */"v":1`, "a name in quotes is missing")
	c.edit("a comma too many", `"0123abc"}`, `"0123abc",}`, "a name in quotes is missing")
	c.edit("nested too deep", `"v":1`, `"v":1,"later":`+strings.Repeat("[", 8)+strings.Repeat("]", 8), "nested more than")
}

func entryCases(c *cases) {
	c.of("entry", testRelease(c.t, nil, "db-1").Entries[0])
	c.is("as made", c.base, "")
	closure := testEntry(c.t, "db-1").Closure.String()
	base := testEntry(c.t, "db-1").StorePath[len("/nix/store/"):]
	long := func(n int) string { return strings.Repeat("a", n) }

	c.edit("another store", "/nix/store", "/srv/nix-2.x/store", "")
	c.edit("a store with odd characters", "/nix/store", "/a b"[:2]+`!\"#$%&'()*+-.:<=>?@[\\]^_{|}~`+"/store", "")
	c.edit("an unknown name", `{"target"`, `{"later":[{}],"target"`, "")
	c.edit("for everyone", `"db-1"`, `"*"`, "")
	c.edit("the longest target", `"db-1"`, `"`+long(127)+`"`, "")
	c.edit("a group", `"db-1"`, `"role:web.eu_1"`, "")
	c.edit("spaces", `{`, " {\n", "")
	for _, a := range Actions[1:] {
		c.edit("action "+string(a), `"auto"`, `"`+string(a)+`"`, "")
	}

	c.is("nothing", nil, "an object has to stand here")
	c.is("an empty object", []byte("{}"), "target is missing")
	c.is("null", []byte("null"), "an object has to stand here")
	c.is("too long", append(bytes.Clone(c.base), bytes.Repeat([]byte("\n"), maxEntry)...), "at most 4096")
	c.is("something behind it", append(bytes.Clone(c.base), 0), "something follows")
	c.edit("a name twice", `"action"`, `"action":"boot","action"`, "stands there twice")
	c.edit("a name in another case", `"action"`, `"Action":"boot","action"`, "is not the name of a field")
	c.edit("critical", `{"target"`, `{"crit":["probation"],"probation":300,"target"`, `it needs "probation"`)
	for _, name := range []string{"target", "store_path", "closure", "system", "action"} {
		c.edit("no "+name, `"`+name+`":`, `"no_`+name+`":`, name+" is missing")
		at := bytes.Index(c.base, []byte(`"`+name+`":`)) + len(name) + 3
		c.is(name+" is null", []byte(string(c.base[:at])+`null,"x`+name+`":`+string(c.base[at:])), name+" is not a string")
	}
	for _, bad := range []string{"", "**", "db-*", "-db", ".db", "db 1", "db/1", "dä", long(128), `db-1\n`, `db-1\u0000`} {
		c.edit(fmt.Sprintf("target %q", bad), `"db-1"`, `"`+bad+`"`, "is not a target")
	}
	for _, bad := range []string{"", "/", base, "/" + base, "nix/store/" + base, "//" + base, "/nix//store/" + base, "/nix/store//" + base, "/nix/./store/" + base, "/nix/../store/" + base, "/../" + base, "/nix/store;/" + base, "/nix/a,b/" + base, `/nix/store\n/` + base, "/nix /" + base, "/nüx/" + base, "/" + long(255) + "/" + base} {
		c.edit(fmt.Sprintf("store_path %q", bad), "/nix/store/"+base, bad, "cannot be a store directory")
	}
	for _, bad := range []string{"/nix/store/" + base + "/", "/nix/store/" + base + "/bin"} {
		c.edit(fmt.Sprintf("store_path %q", bad), "/nix/store/"+base, bad, "store_path: store path")
	}
	for _, bad := range []string{base[:32], base[:33], base[1:], "e" + base[1:], strings.ToUpper(base[:32]) + base[32:], base + " ", base + `\n`, base[:33] + ".", base[:33] + long(212)} {
		c.edit(fmt.Sprintf("store_path of %q", bad), base, bad, "store_path: store path")
	}
	c.edit("a closure of zeros", closure, "sha256:"+strings.Repeat("0", 64), "closure is missing")
	c.edit("a closure in upper case", closure, strings.ToUpper(closure), "is not sha256:")
	c.edit("a closure in base64", closure, "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "is not sha256:")
	for _, bad := range []string{"", "x86_64", "x86_64-", "-linux", "x86_64-linux-gnu", "X86_64-linux", "x86_64 linux", `x86_64-linux\n`, long(33) + "-linux"} {
		c.edit(fmt.Sprintf("system %q", bad), "x86_64-linux", bad, "is not like x86_64-linux")
	}
	for _, bad := range []string{"", "Auto", "auto ", "kexec", "none", "dry_activate", `auto\u0000`} {
		c.edit(fmt.Sprintf("action %q", bad), `"auto"`, `"`+bad+`"`, "is none of")
	}
	c.edit("a list of targets", `"db-1"`, `["db-1"]`, "target is not a string")
}

func manifestCases(c *cases) {
	c.of("manifest", testClosure(c.t, "/nix/store", "nixos-system-db-1-25.11").Text())
	lines := strings.SplitAfter(string(c.base), "\n")
	lines = lines[:len(lines)-1]
	find := func(name string) int {
		for i, l := range lines {
			if strings.HasPrefix(l, "1;/nix/store/"+string(testPath(name))) {
				return i
			}
		}
		c.t.Fatalf("no line of %s", name)
		return 0
	}
	linux, bash := lines[find("linux-6.12.1")], lines[find("bash-5.3")]
	hash := string(c.base[bytes.Index(c.base, []byte(";sha256:"))+1:][:59])
	more, err := NewManifest([]*narinfo.Info{testInfo("/nix/store", "nixos-system-db-1-25.11", 1), testInfo("/nix/store", "other", 1)})
	if err != nil {
		c.t.Fatal(err)
	}

	c.is("as made", c.base, "")
	c.is("another store", testClosure(c.t, "/srv/s", "nixos-system-db-1-25.11").Text(), "")
	c.is("nothing", nil, "0 bytes")
	c.is("an empty line", []byte("\n"), "not of the form")
	c.is("an empty line at the end", append(bytes.Clone(c.base), '\n'), "not of the form")
	c.is("no newline at the end", c.base[:len(c.base)-1], "no newline")
	c.is("CR LF", bytes.ReplaceAll(c.base, []byte("\n"), []byte("\r\n")), "is not directly in")
	c.edit("CR LF after no references", linux, strings.TrimSuffix(linux, "\n")+"\r\n", "is not directly in")
	c.is("a line twice", []byte(strings.Join(append(lines, lines[len(lines)-1]), "")), "twice or out of order")
	c.is("lines out of order", []byte(lines[1]+lines[0]+strings.Join(lines[2:], "")), "twice or out of order")
	c.edit("a path is missing", linux, "", "which is not listed")
	c.is("a path that the root does not need", more.Text(), "2 paths are listed")
	c.is("the root is missing", []byte(linux), "nixos-system-db-1-25.11 is not listed")
	c.edit("another version", lines[0], "2"+lines[0][1:], "not of the form")
	c.edit("a field too many", linux, strings.TrimSuffix(linux, "\n")+";\n", "not of the form")
	c.edit("a field too few", bash, bash[:strings.LastIndex(bash, ";")]+"\n", "not of the form")
	c.edit("two stores", linux, strings.Replace(linux, "/nix/store", "/gnu/store", 1), "is not directly in")
	c.edit("a reference in another store", bash, bash[:strings.LastIndex(bash, ";")+1]+testPath("glibc-2.42").In("/gnu/store")+"\n", "is not directly in")
	c.is("a relative store", bytes.ReplaceAll(c.base, []byte("/nix/store"), []byte("nix/store")), "cannot be a store directory")
	c.is("a store at the root", bytes.ReplaceAll(c.base, []byte("/nix/store"), nil), "cannot be a store directory")
	c.edit("a hash in base 16", hash, fmt.Sprintf("sha256:%x", sha256.Sum256(nil)), "not in the one form")
	c.edit("a hash as SRI", hash, "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "not in the one form")
	c.edit("a hash without its prefix", hash, hash[7:], "it names no algorithm")
	c.edit("a hash of zeros", hash, "sha256:"+strings.Repeat("0", 52), "all zeros")
	for _, bad := range []string{"", "0", "-1", "1.0", "1e3", "9223372036854775808"} {
		c.edit(fmt.Sprintf("a size of %q", bad), ";155189248;", ";"+bad+";", "is not a size")
	}
	for _, bad := range []string{"+1", "01"} {
		c.edit(fmt.Sprintf("a size of %q", bad), ";155189248;", ";"+bad+";", "not in the one form")
	}
	c.edit("a size of 2^53", ";155189248;", ";9007199254740992;", "a NarSize of")
	c.edit("sizes of 2^53 together", ";155189248;", ";9007199254740991;", "together larger")
	glibc := testPath("glibc-2.42").In("/nix/store")
	c.edit("a reference twice", bash, strings.Replace(bash, glibc, glibc+","+glibc, 1), "not sorted and unique")
	c.edit("a comma too many", bash, strings.Replace(bash, glibc, glibc+",", 1), "is not directly in")
	refs := strings.Split(strings.TrimSuffix(lines[find("nixos-system-db-1-25.11")], "\n"), ";")[4]
	sorted := strings.Split(refs, ",")
	c.edit("references out of order", refs, sorted[1]+","+sorted[0]+","+sorted[2], "not sorted and unique")
	c.edit("a reference with a space", bash, strings.Replace(bash, glibc, " "+glibc, 1), "is not directly in")
	twin := strings.Replace(linux, "linux-6.12.1", "linux-6.12.1-twin", 1)
	c.edit("two paths of one hash", linux, linux+twin, "have one hash")
	c.edit("not ASCII", "bash-5.3;", "bäsh-5.3;", "which store paths may not have")
}

func caseVectors(t *testing.T) casesFile {
	const target = "web-1"
	file := casesFile{Trust: trustOf(testTrust(t, "")), Target: target}
	for _, tc := range allCases(t) {
		if len(tc.text) > 32<<10 {
			continue // past a limit in bytes: docs/formats.md has them
		}
		v := caseVector{What: tc.what, Name: tc.name, Valid: tc.says == ""}
		if v.Text = string(tc.text); !utf8.Valid(tc.text) {
			v.Text, v.Hex = "", hex.EncodeToString(tc.text)
		}
		if tc.trust != nil {
			other := trustOf(*tc.trust)
			v.Trust = &other
		}
		if tc.what == "manifest" {
			v.Root = testPath("nixos-system-db-1-25.11")
		}
		if v.Valid {
			v.Means = meaning(t, tc)
		}
		file.Cases = append(file.Cases, v)
	}
	return file
}

// meaning is what a valid head or entry says, as JSON of the plainest form.
func meaning(t *testing.T, tc testCase) json.RawMessage {
	var v any
	var err error
	switch tc.what {
	case "head":
		v, err = ParseHead(tc.text)
	case "entry":
		v, err = ParseEntry(tc.text)
	default:
		return nil
	}
	if err != nil {
		t.Fatalf("%s, %s: %v", tc.what, tc.name, err)
	}
	return mustJSON(t, v)
}

// take reads a case as its consumer would.
func (tc *testCase) take(t testing.TB) error {
	trust := testTrust(t, "web-1")
	if tc.trust != nil {
		trust = *tc.trust
	}
	switch tc.what {
	case "head":
		_, err := ParseHead(tc.text)
		return err
	case "entry":
		_, err := ParseEntry(tc.text)
		return err
	case "envelope":
		e, err := parseEnvelope(tc.text)
		if err == nil {
			_, err = e.Open(HeadKind, trust.Keys, trust.Threshold)
		}
		return err
	case "pointer":
		p := new(Pointer)
		err := p.UnmarshalJSON(tc.text)
		if err == nil {
			_, _, err = p.Verify(trust)
		}
		return err
	case "release":
		r := new(Release)
		err := json.Unmarshal(tc.text, r)
		if err == nil {
			_, _, err = r.Check()
		}
		return err
	case "manifest":
		_, err := ParseManifest(tc.text, sha256.Sum256(tc.text), testPath("nixos-system-db-1-25.11"))
		return err
	}
	t.Fatalf("what is a %q?", tc.what)
	return nil
}

func TestCases(t *testing.T) {
	seen := make(map[string]bool)
	for _, tc := range allCases(t) {
		name := tc.what + ": " + tc.name
		if seen[name] {
			t.Errorf("%s is there twice", name)
		}
		seen[name] = true
		err := tc.take(t)
		if tc.says == "" && err != nil {
			t.Errorf("%s: %v\n%s", name, err, tc.text)
		}
		if tc.says != "" {
			wantError(t, name, err, tc.says)
		}
	}
}
