package dump

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"narwharf/cache/nar"
)

// file is an entry with its body.
type file struct {
	nar.Entry
	Body string
}

func dir(path string) file { return file{Entry: nar.Entry{Path: path, Type: nar.Directory}} }
func link(path, target string) file {
	return file{Entry: nar.Entry{Path: path, Type: nar.Symlink, Target: target}}
}
func plainFile(path, body string) file {
	return file{nar.Entry{Path: path, Type: nar.Regular, Size: int64(len(body))}, body}
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

// write writes a NAR in the most direct way there is, and checks nothing.
func write(files ...file) (b []byte) {
	list := []string{"nix-archive-1"}
	var node func(i int) int
	node = func(i int) int {
		f := files[i]
		i++
		list = append(list, "(", "type", f.Type.String())
		switch f.Type {
		case nar.Symlink:
			list = append(list, "target", f.Target)
		case nar.Regular:
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
	for _, word := range list {
		b = nar.AppendString(b, word)
	}
	return b
}

// The zoo has every kind of entry, and names that have gone wrong somewhere.
func zoo() []file {
	files := []file{
		dir(""), dir("empty-dir"), plainFile("empty-file", ""), exeFile("empty-exe", ""),
		dir("bin"), exeFile("bin/run", "#!/bin/sh\necho hi\n"), link("bin/rel", "run"), link("bin/up", "../.."),
		link("dangling", "/nonexistent/target"), link("long-link", strings.Repeat("t", nar.MaxTarget)),
		dir("deep"), dir("deep/1"), dir("deep/1/2"), dir("deep/1/2/3"), plainFile("deep/1/2/3/leaf", "no newline"),
		plainFile("deep-", "sorts after all of deep/"), plainFile("deep.x", "too"),
		dir("unicode"), plainFile("binary", "\x00\x01\xffbinary"), plainFile(strings.Repeat("x", nar.MaxName), "long"),
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

// names of entries: any bytes but slash and NUL, often ones that nearly collide.
func names() *rapid.Generator[string] {
	odd := rapid.SliceOfN(rapid.Byte().Filter(func(b byte) bool { return b != 0 && b != '/' }), 1, 30)
	return rapid.OneOf(
		rapid.StringMatching(`[ab]{1,3}`),
		rapid.StringMatching(`[a-zA-Z0-9 ._+~-]{1,16}`),
		rapid.Custom(func(t *rapid.T) string { return string(odd.Draw(t, "bytes")) }),
		rapid.SampledFrom([]string{"a-", "a.", "a0", "...", "日本語", strings.Repeat("l", nar.MaxName)}),
	).Filter(func(s string) bool { return nar.CheckName(s) == nil })
}

func targets() *rapid.Generator[string] {
	return rapid.OneOf(names(), rapid.SampledFrom([]string{"/", "..", "../../x", "/nix/store/x", strings.Repeat("t", nar.MaxTarget)}))
}

func bodies() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		size := rapid.OneOf(rapid.IntRange(0, 20), rapid.IntRange(0, 5000)).Draw(t, "size")
		return strings.Repeat(rapid.StringN(1, 8, -1).Draw(t, "body"), size)[:size]
	})
}

// trees are the entries of a random tree, in the order of an archive.
func trees() *rapid.Generator[[]file] {
	return rapid.Custom(func(t *rapid.T) []file {
		var files []file
		var grow func(path string, depth int)
		grow = func(path string, depth int) {
			switch kind := rapid.IntRange(0, 6).Draw(t, "kind"); {
			case depth == 0 && kind > 1, kind > 3 && depth < 6: // mostly a directory at the root
				files = append(files, dir(path))
				used := map[string]bool{}
				if path != "" {
					path += "/"
				}
				for range rapid.IntRange(0, 5).Draw(t, "entries") {
					name := names().Draw(t, "name")
					if !used[name] && len(path)+len(name) < 2000 { // what a file system lets us make
						used[name] = true
						grow(path+name, depth+1)
					}
				}
			case kind%3 == 0:
				files = append(files, link(path, targets().Draw(t, "target")))
			case kind%3 == 1:
				files = append(files, plainFile(path, bodies().Draw(t, "body")))
			default:
				files = append(files, exeFile(path, bodies().Draw(t, "body")))
			}
		}
		grow("", 0)
		return sorted(files...)
	})
}

var errFull = errors.New("no room")

// fullWriter takes room bytes and no more.
type fullWriter struct{ room int }

func (w *fullWriter) Write(p []byte) (int, error) {
	n := min(len(p), w.room)
	w.room -= n
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}

// samples are small trees.
func samples() map[string][]file {
	deepest := []file{dir("")}
	for d, path := 1, ""; d < nar.MaxDepth; d++ {
		path += "/d"
		deepest = append(deepest, dir(path[1:]))
	}
	return map[string][]file{
		"empty directory": {dir("")},
		"file":            {plainFile("", "hello")},
		"empty file":      {plainFile("", "")},
		"executable":      {exeFile("", "12345678")},
		"link":            {link("", "/etc/passwd")},
		"zoo":             zoo(),
		"deepest":         deepest,
	}
}
