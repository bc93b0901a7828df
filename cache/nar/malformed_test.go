package nar

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/iotest"
)

// malformed is what must be refused with words that contain want. Nix 2.34 refuses it too, unless
// nixTakes.
type malformed struct {
	name     string
	parts    []any
	want     string
	nixTakes bool
}

func nestedDirs(depth int) []any {
	list := p("nix-archive-1", "(", "type", "directory")
	for range depth {
		list = append(list, "entry", "(", "name", "d", "node", "(", "type", "directory")
	}
	for range depth {
		list = append(list, ")", ")")
	}
	return append(list, ")")
}

func malformeds() []malformed {
	begin := p("nix-archive-1", "(", "type")
	inDir := parts(begin, p("directory"))
	named := func(name any) []any { return p("entry", "(", "name", name, "node", "(", "type") }
	file := func(name any) []any { return parts(named(name), p("regular", "contents", "", ")", ")")) }
	odd := func(s string) []byte { // a string with a bad last byte of padding
		b := spell(s)
		b[len(b)-1] = 1
		return b
	}
	long := func(n int) string { return strings.Repeat("n", n) }
	return []malformed{
		{"empty", nil, "the input is empty", false},
		{"html", p([]byte("<html><body>502 Bad Gateway</body></html>")), "this is not a nar", false},
		{"zstd", p([]byte("\x28\xb5\x2f\xfd")), "this is not a nar", false},
		{"other version", p("nix-archive-2", "(", "type"), "this is not a nar", false},
		{"magic with bad padding", p(odd("nix-archive-1")), "this is not a nar", false},
		{"no parenthesis", p("nix-archive-1", "type", "regular"), `at byte 24: "(" expected, but found "type"`, false},
		{"no type", p("nix-archive-1", "(", "contents"), `"type" expected, but found "contents"`, false},
		{"empty node", p("nix-archive-1", "(", ")"), `"type" expected, but found ")"`, false},
		{"type of older nix", parts(begin, p("regular", "contents", "x", "executable", "", ")")), `")" expected, but found "executable"`, false},
		{"unknown type", parts(begin, p("fifo")), `"regular" or "directory" or "symlink" expected, but found "fifo"`, false},
		{"type in capitals", parts(begin, p("Regular")), `found "Regular"`, false},
		{"over-long type", parts(begin, p(long(1000))), `but a string of 1000 bytes is announced`, false},
		{"type with bad padding", parts(begin, p(odd("regular"))), `the padding of "regular" is not zero`, false},
		{"directory with bad padding", parts(begin, p(odd("directory"))), `the padding of "directory" is not zero`, false},
		{"huge tag", parts(begin, p(uint64(math.MaxUint64))), `a string of 18446744073709551615 bytes`, false},

		{"no contents", parts(begin, p("regular", ")")), `"contents" or "executable" expected, but found ")"`, false},
		{"executable twice", parts(begin, p("regular", "executable", "", "executable", "", "contents", "", ")")), `"contents" expected, but found "executable"`, false},
		{"executable with a value", parts(begin, p("regular", "executable", "yes", "contents", "", ")")), `the executable marker has the value "yes": it must be empty`, false},
		{"executable with bad padding", parts(begin, p("regular", odd("executable"), "", "contents", "", ")")), `the padding of "executable" is not zero`, false},
		{"contents twice", parts(begin, p("regular", "contents", "", "contents", "", ")")), `")" expected`, false},
		{"body padding", parts(begin, p("regular", "contents", odd("x"), ")")), "the padding of the body is not zero", false},
		{"body too large", parts(begin, p("regular", "contents", uint64(math.MaxInt64)+1)), "a body of 9223372036854775808 bytes is not possible", false},
		{"body as large as can be", parts(begin, p("regular", "contents", uint64(math.MaxInt64))), "a body of 9223372036854775807 bytes is not possible", false},
		{"body of all bits", parts(begin, p("regular", "contents", uint64(math.MaxUint64))), "is not possible", false},
		{"body without end", parts(begin, p("regular", "contents", 1<<60, []byte("x"))), "cut off here, before the end of the body", false},

		{"link without target", parts(begin, p("symlink", ")")), `"target" expected, but found ")"`, false},
		{"empty target", parts(begin, p("symlink", "target", "", ")")), "the target of the link is empty", false},
		{"target with NUL", parts(begin, p("symlink", "target", "a\x00b", ")")), "the target of the link contains a NUL byte", false},
		{"over-long target", parts(begin, p("symlink", "target", long(MaxTarget+1), ")")), "the target of the link is 4096 bytes long, the longest allowed is 4095", false},
		{"target with bad padding", parts(begin, p("symlink", "target", odd("x"), ")")), "the padding of the target of the link is not zero", false},
		{"target twice", parts(begin, p("symlink", "target", "a", "target", "b", ")")), `")" expected, but found "target"`, false},

		{"unknown in directory", parts(inDir, p("file")), `"entry" or ")" expected, but found "file"`, false},
		{"entry with bad padding", parts(inDir, p(odd("entry"))), `the padding of "entry" is not zero`, false},
		{"end with bad padding", parts(inDir, p(odd(")"))), `the padding of ")" is not zero`, false},
		{"nameless", parts(inDir, p("entry", "(", "node")), `"name" expected, but found "node"`, false},
		{"nodeless", parts(inDir, p("entry", "(", "name", "a", ")", ")")), `entry "a": "node" expected, but found ")"`, false},
		{"node before name", parts(inDir, p("entry", "(", "node", "(", "type", "regular", "contents", "", ")", "name", "a", ")", ")")), `"name" expected`, false},
		{"unended entry", parts(inDir, named("a"), p("regular", "contents", "", ")", "entry")), `entry "a": ")" expected, but found "entry"`, false},
		{"empty name", parts(inDir, file("")), "the name is empty", false},
		{"name .", parts(inDir, file(".")), `the name "." is not allowed`, false},
		{"name ..", parts(inDir, file("..")), `the name ".." is not allowed`, false},
		{"name with slash", parts(inDir, file("a/b")), `the name "a/b" contains a slash or a NUL byte`, false},
		{"name of a slash", parts(inDir, file("/")), `the name "/" contains a slash`, false},
		{"name with NUL", parts(inDir, file("a\x00")), `the name "a\x00" contains a slash or a NUL byte`, false},
		{"over-long name", parts(inDir, file(long(MaxName+1))), "the name is 256 bytes long, the longest allowed is 255", false},
		{"endless name", parts(inDir, p("entry", "(", "name", uint64(math.MaxUint64))), "the name is 18446744073709551615 bytes long", false},
		{"name with bad padding", parts(inDir, file(odd("a"))), "the padding of the name is not zero", false},
		{"twice", parts(inDir, file("a"), file("a")), `the name "a" stands twice in one directory`, false},
		{"descending", parts(inDir, file("b"), file("a")), `the name "a" comes after "b": names must ascend byte by byte`, false},
		{"prefix after", parts(inDir, file("ab"), file("a")), `the name "a" comes after "ab"`, false},
		{"order is unsigned", parts(inDir, file("\xff"), file("a")), `the name "a" comes after "\xff"`, false},
		{"order is not by locale", parts(inDir, file("a"), file("B")), `the name "B" comes after "a"`, false},
		{"order after a directory", parts(inDir, named("b"), p("directory"), file("zzz"), p(")", ")"), file("a")), `the name "a" comes after "b"`, false},
		{"twice after a directory", parts(inDir, named("b"), p("directory"), file("b"), p(")", ")"), file("b")), `the name "b" stands twice`, false},
		{"order two down", parts(inDir, named("b"), p("directory"), file("y"), file("x")), `entry "b": the name "x" comes after "y"`, false},
		{"too deep", nestedDirs(MaxDepth), "it lies 64 directories deep: nix accepts at most 63", false},
		{"far too deep", nestedDirs(100_000), "it lies 64 directories deep", false},

		{"more after a file", parts(begin, p("regular", "contents", "", ")", []byte{0})), "at byte 112: the archive ends here, but the input goes on", true},
		{"more after a directory", parts(inDir, p(")", ")")), "the archive ends here, but the input goes on", true},
		{"two archives", parts(inDir, p(")"), inDir, p(")")), "the archive ends here, but the input goes on", true},
	}
}

func TestMalformed(t *testing.T) {
	for _, tt := range malformeds() {
		t.Run(tt.name, func(t *testing.T) {
			b := spell(tt.parts...)
			_, err := Check(bytes.NewReader(b))
			var format *FormatError
			if !errors.As(err, &format) {
				t.Fatalf("got %v, want a FormatError", err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %s\nwant %s", err, tt.want)
			}
			if format.Offset < 0 || format.Offset > int64(len(b)) {
				t.Errorf("the offset %d is not within the %d bytes", format.Offset, len(b))
			}
			// the same, byte by byte, and by the other ways in
			if _, slow := Check(iotest.OneByteReader(bytes.NewReader(b))); slow == nil || slow.Error() != err.Error() {
				t.Errorf("byte by byte it is %v, not %v", slow, err)
			}
			if _, list := List(bytes.NewReader(b), 1<<20); list == nil || list.Error() != err.Error() {
				t.Errorf("List says %v, not %v", list, err)
			}
			if _, entries := read(bytes.NewReader(b)); entries == nil {
				t.Error("Next accepts it")
			}
		})
	}
	if _, err := Check(bytes.NewReader(spell(nestedDirs(MaxDepth - 1)...))); err != nil {
		t.Errorf("as deep as nix allows: %v", err)
	}
}
