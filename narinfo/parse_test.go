package narinfo

import (
	"bytes"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// A narinfo with every key; the line numbers in the tests below are these.
const full = `StorePath: /nix/store/qkdk78p9zk4wsgn444p7vwkcmrkmizyb-ref-a
URL: nar/0mibbnj53i4diqvsvrik7pfgfkwfqgn96pqrirc3218c43dyjqdv.nar.zst
Compression: zstd
FileHash: sha256:0mibbnj53i4diqvsvrik7pfgfkwfqgn96pqrirc3218c43dyjqdv
FileSize: 219
NarHash: sha256:187iymp1lrgf4b6awmm4abx14c01hfid2dxrcgzzsvb3hzsmmgrn
NarSize: 552
References: 2skf6yqmj2agdi1rlxjqg7fabifrwndw-ca-b 5hkqklgjvx00bq2jxj0jp5187y42l4dh-ref-b
Deriver: 9yzallplrraj76c28887113izisc0yf2-ref-a.drv
Sig: ci-1:eIyXtTAtdp7wPztYWMZZydBVFoQZ1skssTOyxd59vN/OSAsfiNmSVVnWokM5TaTxxWl9wkRLsQexkIYhQNbCAw==
Sig: narwharf.example.org-1:cj5gmutDTU0hbH7hKGuHNvnLbKIuy+i7+/cNE3sW1gtL1uJtEOofkQdDDioxeOEJHavEW7SkBpEBB8HmNrwpDw==
CA: fixed:r:sha256:0jq7ilz3zliz0a6mgbgmfz2a54b67n6xa4p6ajs5j1amcmnrbcfi
`

const (
	refA   = "StorePath: /nix/store/qkdk78p9zk4wsgn444p7vwkcmrkmizyb-ref-a\n"
	narLn  = "NarHash: sha256:187iymp1lrgf4b6awmm4abx14c01hfid2dxrcgzzsvb3hzsmmgrn\n"
	refsLn = "References: 2skf6yqmj2agdi1rlxjqg7fabifrwndw-ca-b 5hkqklgjvx00bq2jxj0jp5187y42l4dh-ref-b\n"
	drvLn  = "Deriver: 9yzallplrraj76c28887113izisc0yf2-ref-a.drv\n"
	sigLn  = "Sig: ci-1:eIyXtTAtdp7wPztYWMZZydBVFoQZ1skssTOyxd59vN/OSAsfiNmSVVnWokM5TaTxxWl9wkRLsQexkIYhQNbCAw==\n"
	caLn   = "CA: fixed:r:sha256:0jq7ilz3zliz0a6mgbgmfz2a54b67n6xa4p6ajs5j1amcmnrbcfi\n"
)

func TestFullPrintsAsItIs(t *testing.T) {
	i, err := Parse([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	if got := i.Append(nil); string(got) != full {
		t.Errorf("printed\n%s", got)
	}
}

// Each case replaces the first occurrence of old in full by new.
func TestParseRefuses(t *testing.T) {
	const alphabet = "which is not in Nix's base-32 alphabet (digits and lower-case letters without e, o, t, u)"
	for _, c := range []struct{ name, old, new, want string }{
		{"empty", full, "", `narinfo is empty`},
		{"only a newline", full, "\n", `narinfo line 1: it is blank; a narinfo has no blank lines`},
		{"blank line inside", "URL: ", "\nURL: ", `narinfo line 2: it is blank; a narinfo has no blank lines`},
		{"blank line at the end", caLn, caLn + "\n", `narinfo line 13: it is blank; a narinfo has no blank lines`},
		{"CR LF", "zstd\nFile", "zstd\r\nFile", `narinfo line 3: it ends in CR LF; narinfo lines end in LF alone`},
		{"blank with CR LF", caLn, "\r\n", `narinfo line 12: it ends in CR LF; narinfo lines end in LF alone`},
		{"no last newline", caLn, caLn[:len(caLn)-1], `narinfo line 12: no newline at its end; the text may be cut short`},
		{"cut inside a line", caLn, "CA: fixed:r:sha", `narinfo line 12: no newline at its end; the text may be cut short`},
		{"no colon", caLn, "hello\n", `narinfo line 12: "hello" has no colon; each line is "Key: value"`},
		{"html", full, "<html>\n", `narinfo line 1: "<html>" has no colon; each line is "Key: value"`},
		{"colon first", caLn, ": x\n", `narinfo line 12: ": x" has no key before the colon; each line is "Key: value"`},
		{"no space", "NarSize: 552", "NarSize:552", `narinfo line 7: no space follows the colon after "NarSize"`},
		{"nothing after the colon", refsLn, "References:\n", `narinfo line 8: no space follows the colon after "References"`},
		{"space in a key", "URL: ", " URL: ", `narinfo line 2: the key " URL" has a space in it`},
		{"control in an unknown line", caLn, "X: \x1b[31m\n", `narinfo line 12: the line of "X" has a control character`},
		{"control in an unknown key", caLn, "X\x00: a\n", `narinfo line 12: the line of "X\x00" has a control character`},
		{"byte order mark", "StorePath: ", "\ufeffStorePath: ", `narinfo has no StorePath line`},

		{"no StorePath", refA, "", `narinfo has no StorePath line`},
		{"no URL", "URL: ", "Url: ", `narinfo has no URL line`},
		{"no Compression", "Compression: zstd\n", "", `narinfo has no Compression line`},
		{"no NarHash", narLn, "", `narinfo has no NarHash line`},
		{"no NarSize", "NarSize: 552\n", "", `narinfo has no NarSize line`},

		{"two StorePath", "URL: ", refA + "URL: ", `narinfo line 2: a second StorePath line; there can be only one`},
		{"two URL", "URL: ", "URL: a\nURL: ", `narinfo line 3: a second URL line; there can be only one`},
		{"two Compression", "FileHash", "Compression: zstd\nFileHash", `narinfo line 4: a second Compression line; there can be only one`},
		{"two FileHash", "FileSize", "FileHash: x\nFileSize", `narinfo line 5: a second FileHash line; there can be only one`},
		{"two FileSize", "NarHash", "FileSize: 219\nNarHash", `narinfo line 6: a second FileSize line; there can be only one`},
		{"two NarHash", "NarSize", narLn + "NarSize", `narinfo line 7: a second NarHash line; there can be only one`},
		{"two NarSize", "References", "NarSize: 552\nReferences", `narinfo line 8: a second NarSize line; there can be only one`},
		{"two References", drvLn, "References: \n" + drvLn, `narinfo line 9: a second References line; there can be only one`},
		{"two Deriver", drvLn, drvLn + "Deriver: unknown-deriver\n", `narinfo line 10: a second Deriver line; there can be only one`},
		{"two CA", caLn, "CA: \n" + caLn, `narinfo line 13: a second CA line; there can be only one`},

		{"StorePath relative", "/nix/store/qkdk", "nix/store/qkdk", `narinfo line 1: StorePath "nix/store/qkdk78p9zk4wsgn444p7vwkcmrkmizyb-ref-a" is not an absolute path such as /nix/store/<hash>-<name>`},
		{"StorePath a base name", "/nix/store/qkdk", "qkdk", `narinfo line 1: StorePath "qkdk78p9zk4wsgn444p7vwkcmrkmizyb-ref-a" is not an absolute path such as /nix/store/<hash>-<name>`},
		{"StorePath in the root", "/nix/store/qkdk", "/qkdk", `narinfo line 1: StorePath "/qkdk78p9zk4wsgn444p7vwkcmrkmizyb-ref-a" is not an absolute path such as /nix/store/<hash>-<name>`},
		{"StorePath empty", "/nix/store/qkdk78p9zk4wsgn444p7vwkcmrkmizyb-ref-a", "", `narinfo line 1: StorePath "" is not an absolute path such as /nix/store/<hash>-<name>`},
		{"StorePath with ..", "/nix/store/", "/nix/../store/", `narinfo line 1: StorePath "/nix/../store/qkdk78p9zk4wsgn444p7vwkcmrkmizyb-ref-a" is in a directory that cannot be a store: its parts must not be empty, . or .., nor hold control characters, ; or ,`},
		{"StorePath with //", "/nix/store/", "/nix//store/", `narinfo line 1: StorePath "/nix//store/qkdk78p9zk4wsgn444p7vwkcmrkmizyb-ref-a" is in a directory that cannot be a store: its parts must not be empty, . or .., nor hold control characters, ; or ,`},
		{"StorePath with ;", "/nix/store/", "/nix;1/store/", `narinfo line 1: StorePath "/nix;1/store/qkdk78p9zk4wsgn444p7vwkcmrkmizyb-ref-a" is in a directory that cannot be a store: its parts must not be empty, . or .., nor hold control characters, ; or ,`},
		{"StorePath with NUL", "/nix/store/", "/nix\x00/store/", `narinfo line 1: StorePath "/nix\x00/store/qkdk78p9zk4wsgn444p7vwkcmrkmizyb-ref-a" is in a directory that cannot be a store: its parts must not be empty, . or .., nor hold control characters, ; or ,`},
		{"StorePath with a file", "-ref-a\n", "-ref-a/bin\n", `narinfo line 1: StorePath "/nix/store/qkdk78p9zk4wsgn444p7vwkcmrkmizyb-ref-a/bin": it must be 32 characters of hash, a dash and a name`},
		{"StorePath hash", "qkdk", "qkde", `narinfo line 1: StorePath "/nix/store/qkde78p9zk4wsgn444p7vwkcmrkmizyb-ref-a": its hash has "e", ` + alphabet},

		{"URL empty", "URL: nar/0mibbnj53i4diqvsvrik7pfgfkwfqgn96pqrirc3218c43dyjqdv.nar.zst", "URL: ", `narinfo line 2: URL is empty`},
		{"URL with a space", "URL: nar/0mibbnj53i4diqvsvrik7pfgfkwfqgn96pqrirc3218c43dyjqdv", "URL: nar/a b", `narinfo line 2: URL "nar/a b.nar.zst" has a space, a control character or one outside ASCII; such are written %20 and so on`},
		{"URL with a tab", "URL: nar/0mibbnj53i4diqvsvrik7pfgfkwfqgn96pqrirc3218c43dyjqdv", "URL: nar/a\tb", `narinfo line 2: URL "nar/a\tb.nar.zst" has a space, a control character or one outside ASCII; such are written %20 and so on`},
		{"URL with CR inside", "URL: nar/0mibbnj53i4diqvsvrik7pfgfkwfqgn96pqrirc3218c43dyjqdv", "URL: nar/a\rb", `narinfo line 2: URL "nar/a\rb.nar.zst" has a space, a control character or one outside ASCII; such are written %20 and so on`},

		{"Compression empty", "Compression: zstd", "Compression: ", `narinfo line 3: the Compression is empty; a plain NAR is Compression: none`},
		{"Compression with a space", "Compression: zstd", "Compression: zstd ", `narinfo line 3: the Compression "zstd " is not a word of lower-case letters, digits and dashes`},
		{"Compression upper case", "Compression: zstd", "Compression: ZSTD", `narinfo line 3: the Compression "ZSTD" is not a word of lower-case letters, digits and dashes`},

		{"FileHash empty", "FileHash: sha256:0mibbnj53i4diqvsvrik7pfgfkwfqgn96pqrirc3218c43dyjqdv", "FileHash: ", `narinfo line 4: FileHash "": it names no algorithm; "sha256:…" is needed`},
		{"FileHash too short", "FileHash: sha256:0m", "FileHash: sha256:", `narinfo line 4: FileHash "sha256:ibbnj53i4diqvsvrik7pfgfkwfqgn96pqrirc3218c43dyjqdv": 50 digits are neither nix32 (52) nor base 16 (64)`},
		{"FileSize not a number", "FileSize: 219", "FileSize: 219k", `narinfo line 5: FileSize "219k" is not a whole number from 0 to 9223372036854775807`},
		{"FileSize empty", "FileSize: 219", "FileSize: ", `narinfo line 5: FileSize "" is not a whole number from 0 to 9223372036854775807`},
		{"NarHash of md5", "NarHash: sha256:187iymp1lrgf4b6awmm4abx14c01hfid2dxrcgzzsvb3hzsmmgrn", "NarHash: md5:d41d8cd98f00b204e9800998ecf8427e", `narinfo line 6: NarHash "md5:d41d8cd98f00b204e9800998ecf8427e": its algorithm is "md5"; only sha256 is taken here`},
		{"NarHash without algorithm", "NarHash: sha256:1", "NarHash: 1", `narinfo line 6: NarHash "187iymp1lrgf4b6awmm4abx14c01hfid2dxrcgzzsvb3hzsmmgrn": it names no algorithm; "sha256:…" is needed`},
		{"NarHash too large", "NarHash: sha256:1", "NarHash: sha256:2", `narinfo line 6: NarHash "sha256:287iymp1lrgf4b6awmm4abx14c01hfid2dxrcgzzsvb3hzsmmgrn": it is larger than a SHA-256 can be`},
		{"NarSize 0", "NarSize: 552", "NarSize: 0", `narinfo line 7: NarSize "0" is not a whole number from 1 to 9223372036854775807`},
		{"NarSize negative", "NarSize: 552", "NarSize: -552", `narinfo line 7: NarSize "-552" is not a whole number from 1 to 9223372036854775807`},
		{"NarSize with plus", "NarSize: 552", "NarSize: +552", `narinfo line 7: NarSize "+552" is not a whole number from 1 to 9223372036854775807`},
		{"NarSize with a leading zero", "NarSize: 552", "NarSize: 0552", `narinfo line 7: NarSize "0552" is not a whole number from 1 to 9223372036854775807`},
		{"NarSize with an underscore", "NarSize: 552", "NarSize: 5_52", `narinfo line 7: NarSize "5_52" is not a whole number from 1 to 9223372036854775807`},
		{"NarSize over 63 bits", "NarSize: 552", "NarSize: 9223372036854775808", `narinfo line 7: NarSize "9223372036854775808" is not a whole number from 1 to 9223372036854775807`},
		{"NarSize over 64 bits", "NarSize: 552", "NarSize: 18446744073709552168", `narinfo line 7: NarSize "18446744073709552168" is not a whole number from 1 to 9223372036854775807`},

		{"reference malformed", "5hkqklgjvx00bq2jxj0jp5187y42l4dh-ref-b", "ref-b", `narinfo line 8: reference 2, "ref-b": it must be 32 characters of hash, a dash and a name`},
		{"reference with a directory", "5hkqklgjvx00bq2jxj0jp5187y42l4dh-ref-b", "/nix/store/5hkqklgjvx00bq2jxj0jp5187y42l4dh-ref-b", `narinfo line 8: reference 2, "/nix/store/5hkqklgjvx00bq2jxj0jp5187y42l4dh-ref-b": it must be a base name without any directory`},
		{"references with two spaces", "-ca-b 5", "-ca-b  5", `narinfo line 8: the References have a space too many; one space stands between two names`},
		{"references end in a space", "-ref-b\n", "-ref-b \n", `narinfo line 8: the References have a space too many; one space stands between two names`},
		{"references start with a space", "References: ", "References:  ", `narinfo line 8: the References have a space too many; one space stands between two names`},
		{"references by tab", "-ca-b 5", "-ca-b\t5", `narinfo line 8: reference 1, "2skf6yqmj2agdi1rlxjqg7fabifrwndw-ca-b\t5hkqklgjvx00bq2jxj0jp5187y42l4dh-ref-b": its name has "\t", which store paths may not have`},
		{"Deriver empty", drvLn, "Deriver: \n", `narinfo line 9: the Deriver "": it must be 32 characters of hash, a dash and a name`},
		{"Deriver malformed", drvLn, "Deriver: ref-a.drv\n", `narinfo line 9: the Deriver "ref-a.drv": it must be 32 characters of hash, a dash and a name`},
		{"Deriver with a directory", "Deriver: ", "Deriver: /nix/store/", `narinfo line 9: the Deriver "/nix/store/9yzallplrraj76c28887113izisc0yf2-ref-a.drv": it must be a base name without any directory`},

		{"Sig empty", sigLn, "Sig: \n", `narinfo line 10: the Sig has no colon; it is "key name:base64"`},
		{"Sig without a colon", "Sig: ci-1:", "Sig: ", `narinfo line 10: the Sig has no colon; it is "key name:base64"`},
		{"Sig without a name", "Sig: ci-1:", "Sig: :", `narinfo line 10: the Sig has the key name ""; a name must not be empty nor hold spaces or control characters`},
		{"Sig name with a space", "Sig: ci-1:", "Sig: ci 1:", `narinfo line 10: the Sig has the key name "ci 1"; a name must not be empty nor hold spaces or control characters`},
		{"Sig name with escape", "Sig: ci-1:", "Sig: \x1b[m:", `narinfo line 10: the Sig has the key name "\x1b[m"; a name must not be empty nor hold spaces or control characters`},
		{"Sig name not UTF-8", "Sig: ci-1:", "Sig: \xff:", `narinfo line 10: the Sig has the key name "\xff"; a name must not be empty nor hold spaces or control characters`},
		{"Sig of 63 bytes", "Sig: ci-1:eIyX", "Sig: ci-1:", `narinfo line 10: the Sig by "ci-1" is not base64 of 64 bytes`},
		{"Sig unpadded", "bCAw==", "bCAw", `narinfo line 10: the Sig by "ci-1" is not base64 of 64 bytes`},
		{"Sig with stray bits", "bCAw==", "bCAx==", `narinfo line 10: the Sig by "ci-1" is not base64 of 64 bytes`},
		{"Sig with padding inside", "eIyX", "eIy=", `narinfo line 10: the Sig by "ci-1" is not base64 of 64 bytes`},
		{"Sig in URL base64", "vN/O", "vN_O", `narinfo line 10: the Sig by "ci-1" is not base64 of 64 bytes`},
		{"Sig of nothing", sigLn, "Sig: ci-1:\n", `narinfo line 10: the Sig by "ci-1" is not base64 of 64 bytes`},

		{"CA unknown", caLn, "CA: magic:1\n", `narinfo line 12: CA "magic:1" starts with neither text: nor fixed: as it must`},
		{"CA without digest", caLn, "CA: fixed:r:sha256\n", `narinfo line 12: CA "fixed:r:sha256" does not end in <algorithm>:<digest>`},
		{"CA unknown algorithm", caLn, "CA: fixed:crc32:00000000\n", `narinfo line 12: CA "fixed:crc32:00000000" has a hash algorithm that Nix does not know`},
		{"CA text in sha1", caLn, "CA: text:sha1:f572d396fae9206628714fb2ce00f72e94f2258f\n", `narinfo line 12: CA "text:sha1:f572d396fae9206628714fb2ce00f72e94f2258f" is of a text, so its algorithm must be sha256`},
		{"CA digest short", "sha256:0jq7", "sha256:0jq", `narinfo line 12: CA "fixed:r:sha256:0jqilz3zliz0a6mgbgmfz2a54b67n6xa4p6ajs5j1amcmnrbcfi" has no digest of 32 bytes in base 16, nix32 or base64`},
		{"CA digest characters", "sha256:0jq7", "sha256:0jq!", `narinfo line 12: CA "fixed:r:sha256:0jq!ilz3zliz0a6mgbgmfz2a54b67n6xa4p6ajs5j1amcmnrbcfi" has no digest of 32 bytes in base 16, nix32 or base64`},
		{"CA control", caLn, "CA: fixed:\x07\n", `narinfo line 12: CA "fixed:\a" does not end in <algorithm>:<digest>`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(full, c.old) {
				t.Fatalf("the sample has no %q", c.old)
			}
			i, err := Parse([]byte(strings.Replace(full, c.old, c.new, 1)))
			if err == nil {
				t.Fatalf("accepted as\n%s", i.Append(nil))
			}
			if i != nil {
				t.Error("an Info came with the error")
			}
			if err.Error() != c.want {
				t.Errorf("\ngot  %s\nwant %s", err, c.want)
			}
		})
	}
}

// Each case must parse and print as full with the replacement.
func TestParseNormalises(t *testing.T) {
	const sri = "sha256-t+rUPRjH+zW4q3Q7JeLs1JEkq4iJrMBqqhUspr/ggkg="
	for _, c := range []struct{ name, old, new, oldOut, newOut string }{
		{"unknown keys", caLn, "System: x86_64-linux\nX: ü:  a\nX: again\nEmpty: \n" + caLn, "", ""},
		{"order of lines", refA, "", refA, ""}, // see below
		{"Deriver unknown", drvLn, "Deriver: unknown-deriver\n", drvLn, ""},
		{"Deriver absent", drvLn, "", drvLn, ""},
		{"CA empty", caLn, "CA: \n", caLn, ""},
		{"FileSize 0", "FileSize: 219\n", "FileSize: 0\n", "FileSize: 219\n", ""},
		{"FileHash absent", "FileHash: sha256:0mibbnj53i4diqvsvrik7pfgfkwfqgn96pqrirc3218c43dyjqdv\n", "", "FileHash: sha256:0mibbnj53i4diqvsvrik7pfgfkwfqgn96pqrirc3218c43dyjqdv\n", ""},
		{"References absent", refsLn, "", refsLn, "References: \n"},
		{"References empty", refsLn, "References: \n", refsLn, "References: \n"},
		{"References unsorted", refsLn, "References: 5hkqklgjvx00bq2jxj0jp5187y42l4dh-ref-b 2skf6yqmj2agdi1rlxjqg7fabifrwndw-ca-b\n", "", ""},
		{"References doubled", refsLn, refsLn[:len(refsLn)-1] + " 2skf6yqmj2agdi1rlxjqg7fabifrwndw-ca-b\n", "", ""},
		{"Sig doubled and last", caLn, caLn + sigLn, "", ""},
		{"largest NarSize", "NarSize: 552", "NarSize: 9223372036854775807", "NarSize: 552", "NarSize: 9223372036854775807"},
		{"other store", "/nix/store/", "/gnu/the store/", "/nix/store/", "/gnu/the store/"},
		{"store of one part", "/nix/store/", "/s/", "/nix/store/", "/s/"},
		{"absolute URL", "URL: nar/", "URL: https://example.org/%20?a=b#", "URL: nar/", "URL: https://example.org/%20?a=b#"},
		{"name in UTF-8", "Sig: ci-1", "Sig: bäckerei-1", sigLn, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := strings.Replace(full, c.old, c.new, 1)
			want := full
			if c.oldOut != "" {
				want = strings.Replace(full, c.oldOut, c.newOut, 1)
			}
			switch c.name {
			case "order of lines":
				in, want = in+refA, full
			case "name in UTF-8":
				// It sorts before the other name, as ci-1 does.
				want = in
			}
			i, err := Parse([]byte(in))
			if err != nil {
				t.Fatal(err)
			}
			if got := i.Append(nil); string(got) != want {
				t.Errorf("printed\n%swant\n%s", got, want)
			}
		})
	}
	hash, err := ParseHash(sri)
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{sri, hash.String(), "sha256:b7ead43d18c7fb35b8ab743b25e2ecd49124ab8889acc06aaa152ca6bfe08248"} {
		i, err := Parse([]byte(strings.Replace(full, narLn, "NarHash: "+form+"\n", 1)))
		if err != nil {
			t.Fatal(err)
		}
		if i.NarHash != hash || !bytes.Contains(i.Append(nil), []byte("\nNarHash: "+hash.String()+"\n")) {
			t.Errorf("NarHash %s printed as\n%s", form, i.Append(nil))
		}
	}
}

func TestParseDoesNotKeepTheText(t *testing.T) {
	text := []byte(full)
	i, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	clear(text)
	if got := i.Append(nil); string(got) != full {
		t.Errorf("changed with the caller's buffer:\n%s", got)
	}
}

func TestAbsentListsAreNil(t *testing.T) {
	text := strings.Replace(strings.Replace(full, refsLn, "References: \n", 1), sigLn, "", 1)
	text, _, _ = strings.Cut(text, "Sig: ")
	i, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if i.References != nil || i.Sigs != nil || i.CA != "" {
		t.Errorf("%#v", i)
	}
	if !reflect.DeepEqual(i, i.Clone()) {
		t.Error("Clone differs")
	}
}

// A text of spaces costs no more memory than a few times its size.
func TestReferencesReserveLittle(t *testing.T) {
	text := []byte(refA + "References: " + strings.Repeat(" ", 1<<20) + "\n")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Parse(text)
	runtime.ReadMemStats(&after)
	if err == nil {
		t.Fatal("accepted")
	}
	allocated := after.TotalAlloc - before.TotalAlloc
	if allocated > 3<<20 {
		t.Errorf("%d bytes allocated for a text of 1 MiB", allocated)
	}
}
