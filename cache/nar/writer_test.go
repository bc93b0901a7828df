package nar

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"
)

func TestWriterRefuses(t *testing.T) {
	// each case writes all entries; the last, or Close, must fail
	for _, tt := range []struct {
		name  string
		files []file
		want  string
	}{
		{"nothing", nil, "write nar: it has no root"},
		{"no root", []file{plainFile("a", "")}, `write nar entry "a": the first entry must be the root, whose path is empty`},
		{"two roots", []file{dir(""), dir("")}, "there is a root already"},
		{"below a file", []file{plainFile("", ""), plainFile("a", "")}, "the directory it lies in was not written, or is ended"},
		{"below a link", []file{dir(""), link("a", "/"), plainFile("a/b", "")}, `entry "a/b": the directory it lies in was not written`},
		{"below nothing", []file{dir(""), plainFile("a/b", "")}, "the directory it lies in was not written"},
		{"below an ended directory", []file{dir(""), dir("a"), dir("b"), plainFile("a/x", "")}, "was not written, or is ended"},
		{"below a namesake", []file{dir(""), dir("a"), dir("b"), dir("b/a"), plainFile("a/x", "")}, "was not written, or is ended"},
		{"twice", []file{dir(""), plainFile("a", ""), plainFile("a", "")}, "it was written already"},
		{"directory twice", []file{dir(""), dir("a"), dir("a/b"), dir("a")}, "it was written already"},
		{"descending", []file{dir(""), plainFile("b", ""), plainFile("a", "")}, `it must come before "b": names ascend byte by byte`},
		{"descending after a directory", []file{dir(""), dir("b"), dir("b/c"), dir("b/c/d"), plainFile("a", "")}, `it must come before "b"`},
		{"prefix last", []file{dir(""), plainFile("ab", ""), plainFile("a", "")}, `it must come before "ab"`},
		{"slash first", []file{dir(""), plainFile("/a", "")}, "a path has no slash at its start"},
		{"slash last", []file{dir(""), dir("a/")}, "the name is empty"},
		{"two slashes", []file{dir(""), dir("a"), plainFile("a//b", "")}, "the directory it lies in was not written"},
		{"dot", []file{dir(""), plainFile(".", "")}, `the name "." is not allowed`},
		{"up", []file{dir(""), dir("a"), plainFile("a/..", "")}, `the name ".." is not allowed`},
		{"NUL", []file{dir(""), plainFile("a\x00", "")}, "contains a slash or a NUL byte"},
		{"long name", []file{dir(""), plainFile(strings.Repeat("n", MaxName+1), "")}, "the name is 256 bytes long"},
		{"no type", []file{{Entry: Entry{}}}, "type 0 is not a type of file"},
		{"odd type", []file{{Entry: Entry{Type: 9}}}, "type 9 is not a type of file"},
		{"negative size", []file{{Entry: Entry{Type: Regular, Size: -1}}}, "a body of -1 bytes is not possible"},
		{"huge size", []file{{Entry: Entry{Type: Regular, Size: math.MaxInt64}}}, "is not possible"},
		{"file with target", []file{{Entry: Entry{Type: Regular, Target: "x"}}}, "a regular file has no target"},
		{"directory with target", []file{{Entry: Entry{Type: Directory, Target: "x"}}}, "a directory has no target"},
		{"directory with size", []file{{Entry: Entry{Type: Directory, Size: 1}}}, "only a regular file has a size"},
		{"executable directory", []file{{Entry: Entry{Type: Directory, Executable: true}}}, "only a regular file has a size and can be executable"},
		{"executable link", []file{{Entry: Entry{Type: Symlink, Target: "x", Executable: true}}}, "can be executable"},
		{"link to nothing", []file{link("", "")}, "the target of the link is empty"},
		{"target with NUL", []file{link("", "a\x00")}, "the target of the link contains a NUL byte"},
		{"long target", []file{link("", strings.Repeat("t", MaxTarget+1))}, "the target of the link is 4096 bytes long"},
		{"body too short", []file{dir(""), {Entry{Path: "a", Type: Regular, Size: 3}, "xx"}}, `write nar entry "a": 1 of its 3 bytes are missing`},
		{"body too short for another", []file{dir(""), {Entry{Path: "a", Type: Regular, Size: 3}, "xx"}, dir("b")}, `entry "a": 1 of its 3 bytes are missing`},
		{"body too long", []file{dir(""), {Entry{Path: "a", Type: Regular, Size: 1}, "xx"}}, `write nar entry "a": its body is longer than its 1 bytes`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := NewWriter(io.Discard)
			var err error
			for i := 0; i < len(tt.files) && err == nil; i++ {
				err = w.Add(&tt.files[i].Entry, strings.NewReader(tt.files[i].Body))
			}
			if err == nil {
				err = w.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got  %v\nwant %s", err, tt.want)
			}
			if again := w.Add(&Entry{Type: Directory}, nil); !errors.Is(again, err) {
				t.Errorf("Add: first %v, then %v", err, again)
			}
			if again := w.Close(); !errors.Is(again, err) {
				t.Errorf("Close: first %v, then %v", err, again)
			}
		})
	}
}

func TestWriterDepth(t *testing.T) {
	w := NewWriter(io.Discard)
	path := ""
	for depth := range MaxDepth {
		if err := w.Add(&Entry{Path: path, Type: Directory}, nil); err != nil {
			t.Fatalf("%d directories deep: %v", depth, err)
		}
		path = strings.TrimPrefix(path+"/d", "/")
	}
	if err := w.Add(&Entry{Path: path, Type: Regular}, nil); err == nil || !strings.Contains(err.Error(), "it lies 64 directories deep: nix accepts at most 63") {
		t.Errorf("one too deep: %v", err)
	}
}

func TestWriterAfterClose(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out)
	if err := w.Add(&Entry{Type: Directory}, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	n := out.Len()
	if err := w.Add(&Entry{Path: "a", Type: Directory}, nil); err == nil {
		t.Error("an entry after Close is taken")
	}
	if out.Len() != n {
		t.Error("written after Close")
	}
}

// A body that comes in portions gives the same bytes.
func TestBodiesInPortions(t *testing.T) {
	big := strings.Repeat("0123456789abcde", bufferSize/4)
	files := []file{dir("")}
	for i, n := range []int{0, 1, 8, bufferSize - 8<<10, bufferSize - 1, bufferSize, bufferSize + 1, len(big)} {
		files = append(files, plainFile(string(rune('a'+i)), big[:n]))
	}
	want := write(t, files...)
	for name, portions := range map[string]func(io.Reader) io.Reader{
		"whole":    func(r io.Reader) io.Reader { return struct{ io.Reader }{r} },
		"halves":   iotest.HalfReader,
		"data+EOF": iotest.DataErrReader,
		"stutter":  func(r io.Reader) io.Reader { return &stutterReader{r: r} },
	} {
		var out bytes.Buffer
		w := NewWriter(&out)
		for i := range files {
			if err := w.Add(&files[i].Entry, portions(strings.NewReader(files[i].Body))); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), want) {
			t.Errorf("%q: other bytes", name)
		}
	}
}

func TestBodyFails(t *testing.T) {
	broken := errors.New("the disk is gone")
	for want, body := range map[error]io.Reader{
		broken:           io.MultiReader(strings.NewReader("ab"), iotest.ErrReader(broken)),
		io.ErrNoProgress: dryReader{},
	} {
		w := NewWriter(io.Discard)
		if err := w.Add(&Entry{Type: Regular, Size: 4}, body); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
		if err := w.Close(); !errors.Is(err, want) {
			t.Errorf("Close after it: %v", err)
		}
	}
}

// Whatever write fails, the error comes back and stays.
func TestDestinationFails(t *testing.T) {
	big := strings.Repeat("x", 3*bufferSize)
	files := []file{dir(""), plainFile("a", big), plainFile("b", big[:100]), plainFile("c", big[:bufferSize-50])}
	total := len(write(t, files...))
	for room := 0; room < total; room += 997 {
		w := NewWriter(&fullWriter{room: room})
		var err error
		for i := 0; i < len(files) && err == nil; i++ {
			err = w.Add(&files[i].Entry, strings.NewReader(files[i].Body))
		}
		if err == nil {
			err = w.Close()
		}
		if !errors.Is(err, errFull) {
			t.Fatalf("room for %d of %d bytes: %v", room, total, err)
		}
		if again := w.Close(); !errors.Is(again, err) {
			t.Errorf("Close after it: %v", again)
		}
	}
	w := NewWriter(shortWriter{})
	if err := cmp.Or(w.Add(&Entry{Type: Regular}, nil), w.Close()); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("a short write: %v", err)
	}
}
