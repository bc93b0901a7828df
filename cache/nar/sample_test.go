package nar

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// file is an entry with its body.
type file struct {
	Entry
	Body string
}

func dir(path string) file { return file{Entry: Entry{Path: path, Type: Directory}} }
func link(path, target string) file {
	return file{Entry: Entry{Path: path, Type: Symlink, Target: target}}
}
func plainFile(path, body string) file {
	return file{Entry{Path: path, Type: Regular, Size: int64(len(body))}, body}
}

func exeFile(path, body string) file {
	f := plainFile(path, body)
	f.Executable = true
	return f
}

// sorted brings files into the order of an archive: a directory before its entries, names by
// their bytes (so "a-" after all of "a/…").
func sorted(files ...file) []file {
	slices.SortFunc(files, func(a, b file) int {
		as, bs := strings.Split(a.Path, "/"), strings.Split(b.Path, "/")
		if a.Path == "" || b.Path == "" {
			return cmp.Compare(len(a.Path), len(b.Path))
		}
		return slices.Compare(as, bs)
	})
	return files
}

// write makes the one NAR of files that are in its order.
func write(t testing.TB, files ...file) []byte {
	t.Helper()
	for i, f := range files {
		name := f.Path[strings.LastIndexByte(f.Path, '/')+1:]
		switch {
		case (f.Path == "") != (i == 0), f.Path != "" && CheckName(name) != nil, f.Type == Symlink && CheckTarget(f.Target) != nil:
			t.Fatalf("%q is no entry of a NAR", f.Path)
		case i > 1 && !inOrder(files[i-1].Path, f.Path):
			t.Fatalf("%q and %q are not in order", files[i-1].Path, f.Path)
		}
	}
	return spellFiles(files)
}

// inOrder compares names, not paths: "a-" comes after all of "a/…".
func inOrder(a, b string) bool {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) < 0
}

// spellFiles writes a NAR in the most direct way there is, and checks nothing.
func spellFiles(files []file) []byte {
	list := p("nix-archive-1")
	var node func(i int) int
	node = func(i int) int {
		f := files[i]
		i++
		list = append(list, "(", "type", f.Type.String())
		switch f.Type {
		case Symlink:
			list = append(list, "target", f.Target)
		case Regular:
			if f.Executable {
				list = append(list, "executable", "")
			}
			list = append(list, "contents", f.Body)
		default:
			prefix := f.Path + "/"
			if f.Path == "" {
				prefix = ""
			}
			for i < len(files) && strings.HasPrefix(files[i].Path, prefix) {
				name := files[i].Path[strings.LastIndexByte(files[i].Path, '/')+1:]
				list = append(list, "entry", "(", "name", name, "node")
				i = node(i)
				list = append(list, ")")
			}
		}
		list = append(list, ")")
		return i
	}
	node(0)
	return spell(list...)
}

// read takes a NAR apart with the Reader.
func read(r io.Reader) ([]file, error) {
	var files []file
	rd := NewReader(r)
	for {
		e, err := rd.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return files, err
		}
		f := file{Entry: *e}
		body, err := io.ReadAll(rd)
		if err != nil {
			return files, err
		}
		f.Body = string(body)
		files = append(files, f)
	}
}

// spell writes a NAR by hand: strings as strings of the format, numbers as numbers, []byte as
// they are.
func spell(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b = AppendString(b, p)
		case int:
			b = binary.LittleEndian.AppendUint64(b, uint64(p))
		case uint64:
			b = binary.LittleEndian.AppendUint64(b, p)
		case []byte:
			b = append(b, p...)
		default:
			panic(fmt.Sprintf("spell %T", p))
		}
	}
	return b
}

// parts joins lists for spell.
func parts(lists ...[]any) []any { return slices.Concat(lists...) }

func p(list ...any) []any { return list }

// The zoo has every kind of entry, and names that have gone wrong somewhere.
func zoo() []file {
	files := []file{
		dir(""), dir("empty-dir"), plainFile("empty-file", ""), exeFile("empty-exe", ""),
		dir("bin"), exeFile("bin/run", "#!/bin/sh\necho hi\n"), link("bin/rel", "run"), link("bin/up", "../.."),
		link("dangling", "/nonexistent/target"), link("long-link", strings.Repeat("t", MaxTarget)),
		dir("deep"), dir("deep/1"), dir("deep/1/2"), dir("deep/1/2/3"), plainFile("deep/1/2/3/leaf", "no newline"),
		plainFile("deep-", "sorts after all of deep/"), plainFile("deep.x", "too"),
		dir("unicode"), plainFile("binary", "\x00\x01\xffbinary"), plainFile(strings.Repeat("x", MaxName), "long"),
		link("link-of-bytes", "\xff\xfe/\x01\n"),
	}
	for _, name := range []string{
		"ünïcödé", "日本語", "emoji-😀", "nfd-e\u0301", `quote"quote`, `back\slash`, "apos'", "dollar$x", "a&b<c>",
		"100%25", "tab\ttab", "new\nline", "del\x7f", "-dash", "#hash", "?q=1", "UPPER", "upper", "not-utf8-\xff",
		"...", ". ", "~nix~case~hack~1", "name with  spaces", "\x01", "\u2028",
	} {
		files = append(files, plainFile("unicode/"+name, name))
	}
	for n := 1; n <= 9; n++ {
		files = append(files, plainFile(fmt.Sprintf("size%d", n), strings.Repeat("s", n)))
	}
	return sorted(files...)
}

// samples are small good NARs.
func samples(t testing.TB) map[string][]byte {
	deepest := []file{dir("")}
	for d, path := 1, ""; d < MaxDepth; d++ {
		path += "/d"
		deepest = append(deepest, dir(path[1:]))
	}
	return map[string][]byte{
		"empty directory": write(t, dir("")),
		"file":            write(t, plainFile("", "hello")),
		"empty file":      write(t, plainFile("", "")),
		"executable":      write(t, exeFile("", "12345678")),
		"link":            write(t, link("", "/etc/passwd")),
		"zoo":             write(t, zoo()...),
		"deepest":         write(t, deepest...),
	}
}
