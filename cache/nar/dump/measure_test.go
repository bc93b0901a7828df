package dump

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"narwharf/cache/nar"
)

// readFromer takes files as net/http does, and remembers whether it was given any.
type readFromer struct {
	bytes.Buffer
	files int
}

func (r *readFromer) ReadFrom(src io.Reader) (int64, error) {
	if l, ok := src.(*io.LimitedReader); ok {
		if _, ok := l.R.(*os.File); ok {
			r.files++
		}
	}
	return r.Buffer.ReadFrom(struct{ io.Reader }{src})
}

func writeRange(t *Tree, from, to int64) ([]byte, error) {
	var out bytes.Buffer
	n, err := t.WriteRange(context.Background(), struct{ io.Writer }{&out}, from, to)
	if err == nil && n != int64(out.Len()) {
		return nil, errors.New("WriteRange returns another size than it wrote")
	}
	var other readFromer
	if _, again := t.WriteRange(context.Background(), &other, from, to); err == nil && (again != nil || !bytes.Equal(out.Bytes(), other.Bytes())) {
		return nil, errors.New("to an io.ReaderFrom the range is another")
	}
	return out.Bytes(), err
}

// checkTree compares all ways to the NAR of the tree at root.
func checkTree(t interface {
	Helper()
	Fatalf(string, ...any)
}, root string, want []byte, ranges [][2]int64) {
	t.Helper()
	tree, err := Measure(context.Background(), root)
	if err != nil {
		t.Fatalf("measure: %v", err)
	}
	if tree.Size() != int64(len(want)) {
		t.Fatalf("measured %d bytes, they are %d", tree.Size(), len(want))
	}
	list, err := nar.List(bytes.NewReader(want), 1<<20)
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	if !reflect.DeepEqual(tree.Listing(), list) {
		t.Fatalf("listed %+v, it is %+v", tree.Listing(), list)
	}
	for _, r := range ranges {
		got, err := writeRange(tree, r[0], r[1])
		if err != nil || !bytes.Equal(got, want[r[0]:r[1]]) {
			t.Fatalf("range %v: %d bytes (%v)", r, len(got), err)
		}
	}
}

func TestAnyRange(t *testing.T) {
	tmp := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		files := trees().Draw(rt, "tree")
		want := write(files...)
		root := filepath.Join(tmp, "root")
		plant(t, root, files...)
		ranges := [][2]int64{{0, int64(len(want))}}
		for range 10 {
			from := rapid.Int64Range(0, int64(len(want))).Draw(rt, "from")
			ranges = append(ranges, [2]int64{from, rapid.Int64Range(from, int64(len(want))).Draw(rt, "to")})
		}
		checkTree(rt, root, want, ranges)
		if err := os.RemoveAll(root); err != nil {
			rt.Fatal(err)
		}
	})
}

// Every range of a small tree that has all there is.
func TestEveryRange(t *testing.T) {
	files := sorted(dir(""), dir("a"), plainFile("a/x", "hello"), exeFile("a.b", "12345678"), link("l", "a/x"), dir("e"), plainFile("n", ""))
	want := write(files...)
	root := filepath.Join(t.TempDir(), "root")
	plant(t, root, files...)
	var ranges [][2]int64
	for from := range len(want) + 1 {
		for to := from; to <= len(want); to += 1 + (to-from)/3 {
			ranges = append(ranges, [2]int64{int64(from), int64(to)})
		}
	}
	checkTree(t, root, want, ranges)
}

// sizes are bodies on both sides of every bound there is.
func sizes() []file {
	text := strings.Repeat("0123456789abcde", 3*batchSize/15)
	files := []file{dir("")}
	for i, n := range []int{0, 1, largeBody - 1, largeBody, largeBody + 1, batchSize - headRoom, batchSize - 1, batchSize, batchSize + 1, len(text), 3} {
		files = append(files, plainFile(string(rune('a'+i)), text[:n]))
	}
	for i := range 3 * batchBodies {
		files = append(files, plainFile("m"+string(rune('a'+i)), text[i:largeBody+2*i]))
	}
	for i := range 2 * batchFolders {
		name := "n" + string(rune('a'+i))
		files = append(files, dir(name), exeFile(name+"/x", name), dir(name+"/y"), dir(name+"/y/z"), link(name+"/y/z/l", name))
	}
	for i := range 60 {
		files = append(files, link("o"+string(rune('0'+i)), strings.Repeat("t", nar.MaxTarget)))
	}
	return sorted(files...)
}

func TestRangesOfAllSizes(t *testing.T) {
	for name, files := range map[string][]file{
		"sizes": sizes(), "zoo": zoo(), "large root": {exeFile("", strings.Repeat("x", 3*largeBody+1))}, "small root": {plainFile("", "y")}, "link": {link("", "z")},
	} {
		want := write(files...)
		root := filepath.Join(t.TempDir(), "root")
		plant(t, root, files...)
		size := int64(len(want))
		ranges := [][2]int64{{0, size}, {0, 0}, {size, size}, {size - 1, size}}
		for i := int64(1); i < 40; i++ {
			from := size * i / 41
			ranges = append(ranges, [2]int64{from, size}, [2]int64{from, from + 1}, [2]int64{from, min(size, from+largeBody+i)})
		}
		checkTree(t, root, want, ranges)
		got, err := dump(root)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: the dump differs (%v)", name, err)
		}
		var other readFromer
		if _, err := Write(t.Context(), &other, root); err != nil || !bytes.Equal(other.Bytes(), want) {
			t.Errorf("%s: the dump to an io.ReaderFrom differs (%v)", name, err)
		}
		if large := name == "sizes" || name == "large root"; (other.files > 0) != large {
			t.Errorf("%s: the io.ReaderFrom was given %d files", name, other.files)
		}
	}
}

func TestNoSuchRange(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	plant(t, root, plainFile("", "hello"))
	tree, err := Measure(context.Background(), root)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range [][2]int64{{-1, 3}, {3, 2}, {0, tree.Size() + 1}, {tree.Size() + 1, tree.Size() + 1}} {
		if n, err := tree.WriteRange(context.Background(), io.Discard, r[0], r[1]); n != 0 || err == nil || !strings.Contains(err.Error(), "do not exist") {
			t.Errorf("range %v: %d, %v", r, n, err)
		}
	}
	if _, err := Measure(context.Background(), root+"-missing"); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrChanged) {
		t.Errorf("nothing there: %v", err)
	}
}

// What lies outside of the range is not opened, and not read.
func TestRangeOpensNothingElse(t *testing.T) {
	files := []file{dir("")}
	for _, d := range []string{"a", "b", "c"} {
		files = append(files, dir(d), dir(d+"/sub"), plainFile(d+"/sub/large", strings.Repeat(d, 2*largeBody)), plainFile(d+"/sub/small", d))
	}
	want := write(files...)
	root := filepath.Join(t.TempDir(), "root")
	plant(t, root, files...)
	var opened []string
	tree, err := measureWith(context.Background(), root, &faults{atOpen: func(path string) error {
		opened = append(opened, strings.TrimPrefix(path, root))
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	body := tree.Listing().Lookup("b/sub/large")
	for _, tt := range []struct {
		from, to int64
		opened   []string
	}{
		{body.Offset + 10, body.Offset + 20, []string{"", "/b", "/b/sub", "/b/sub/large"}},
		{body.Offset - 1, body.Offset, []string{"", "/b", "/b/sub", "/b/sub/large"}},
		{0, 5, nil}, {tree.Size() - 1, tree.Size(), nil},
	} {
		opened = nil
		var out bytes.Buffer
		if _, err := tree.WriteRange(context.Background(), &out, tt.from, tt.to); err != nil || !bytes.Equal(out.Bytes(), want[tt.from:tt.to]) {
			t.Errorf("range [%d, %d): %v", tt.from, tt.to, err)
		}
		if !reflect.DeepEqual(opened, tt.opened) {
			t.Errorf("range [%d, %d) opens %q", tt.from, tt.to, opened)
		}
	}
}

// Offsets do not fit 32 bits.
func TestRangeOfAHugeFile(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	f, err := os.Create(root)
	if err != nil {
		t.Fatal(err)
	}
	const size = 5<<30 + 3
	_, err = f.WriteAt([]byte("end"), size-3)
	if err := errors.Join(err, f.Close()); err != nil { // a file with a hole: it takes no room
		t.Fatal(err)
	}
	tree, err := Measure(context.Background(), root)
	if err != nil {
		t.Fatal(err)
	}
	body := tree.Listing().Offset
	got, err := writeRange(tree, body+size-5, tree.Size())
	if want := []byte("\x00\x00end" + strings.Repeat("\x00", nar.Padding(size)) + nar.TagClose); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the end is %q (%v)", got, err)
	}
	if got, err := writeRange(tree, body+4<<30-1, body+4<<30+1); err != nil || !bytes.Equal(got, []byte{0, 0}) {
		t.Errorf("in the middle it is %q (%v)", got, err)
	}
}
