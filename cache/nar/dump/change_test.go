package dump

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"narwharf/cache/nar"
)

// onceAt does something when a path is first opened, or read.
func onceAt(path string, do func() error) func(string) error {
	done := false
	return func(at string) error {
		if at == path && !done {
			done = true
			return do()
		}
		return nil
	}
}

// A tree in which something happens in the middle of a dump never comes out as a whole.
func TestDumpOfAChangingTree(t *testing.T) {
	large := strings.Repeat("x", 3*largeBody)
	truncate := func(by int64) func(string) error {
		return func(path string) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			return os.Truncate(path, info.Size()+by)
		}
	}
	replace := func(with file) func(string) error {
		return func(path string) error {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
			plant(t, path, with)
			return nil
		}
	}
	disk := func(string) error { return unix.EIO }
	for name, tt := range map[string]struct {
		at       string // the file it happens to
		when     string // open or read
		do       func(path string) error
		want     error
		measured bool // seen only by comparison with what was measured
	}{
		"small grows":            {"m/small", "read", truncate(1), ErrChanged, false},
		"small shrinks":          {"m/small", "read", truncate(-1), ErrChanged, false},
		"empty grows":            {"m/empty", "read", truncate(1), ErrChanged, false},
		"large grows":            {"m/large", "read", truncate(1), ErrChanged, false},
		"large grows a lot":      {"m/large", "read", truncate(5 * largeBody), ErrChanged, false},
		"large shrinks":          {"m/large", "read", truncate(-1), ErrChanged, false},
		"large is emptied":       {"m/large", "read", truncate(-3 * largeBody), ErrChanged, false},
		"small vanishes":         {"m/small", "open", os.Remove, ErrChanged, false},
		"large vanishes":         {"m/large", "open", os.Remove, ErrChanged, false},
		"link vanishes":          {"m/link", "open", os.Remove, ErrChanged, false},
		"directory vanishes":     {"m/dir", "open", os.RemoveAll, ErrChanged, false},
		"all vanishes":           {"m/empty", "open", func(path string) error { return os.RemoveAll(filepath.Dir(path)) }, ErrChanged, false},
		"file becomes directory": {"m/small", "open", replace(dir("")), ErrChanged, false},
		"file becomes link":      {"m/small", "open", replace(link("", "large")), ErrChanged, false},
		"file becomes pipe": {"m/small", "open", func(path string) error {
			return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o644))
		}, ErrChanged, false},
		"link becomes file":      {"m/link", "open", replace(plainFile("", "x")), ErrChanged, false},
		"directory becomes file": {"m/dir", "open", replace(plainFile("", "x")), ErrChanged, false},
		"directory becomes link": {"m/dir", "open", replace(link("", ".")), ErrChanged, false},
		"bad sector, small":      {"m/small", "read", disk, unix.EIO, false},
		"bad sector, large":      {"m/large", "read", disk, unix.EIO, false},
		"bad sector, inode":      {"m/small", "open", disk, unix.EIO, false},
		"bad sector, directory":  {"m/dir", "open", disk, unix.EIO, false},
		"bad sector, link":       {"m/link", "open", disk, unix.EIO, false},
		"file is longer":         {"m/small", "open", truncate(1), ErrChanged, true},
		"link elsewhere":         {"m/link", "open", replace(link("", "elsewhere")), ErrChanged, true},
		"now executable":         {"m/small", "open", func(path string) error { return os.Chmod(path, 0o755) }, ErrChanged, true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, form := range []string{"dump", "dump to a ReaderFrom", "range", "range to a ReaderFrom"} {
				if tt.measured && strings.HasPrefix(form, "dump") {
					continue
				}
				root := filepath.Join(t.TempDir(), "root")
				files := []file{dir(""), dir("m"), plainFile("m/small", "hello"), plainFile("m/large", large), plainFile("m/empty", ""), link("m/link", "small"),
					dir("m/dir"), plainFile("m/dir/x", "x")}
				for i := range batchSteps { // all that happens is in other hands than the first batch's
					files = append(files, plainFile("a"+strings.Repeat("a", i), "x"), plainFile("z"+strings.Repeat("z", i), "x"))
				}
				plant(t, root, sorted(files...)...)
				var f faults
				hook := onceAt(filepath.Join(root, tt.at), func() error { return tt.do(filepath.Join(root, tt.at)) })
				var out bytes.Buffer
				var w io.Writer = struct{ io.Writer }{&out}
				if strings.HasSuffix(form, "ReaderFrom") {
					w = &out
				}
				var err error
				if strings.HasPrefix(form, "dump") {
					f = faultsAt(tt.when, hook)
					_, err = writeWith(context.Background(), w, root, &f)
				} else {
					tree, failed := measureWith(context.Background(), root, &f)
					if failed != nil {
						t.Fatal(failed)
					}
					f = faultsAt(tt.when, hook)
					_, err = tree.WriteRange(context.Background(), w, 10, tree.Size())
				}
				var path *fs.PathError
				if !errors.Is(err, tt.want) || !errors.As(err, &path) || !strings.HasPrefix(path.Path, root+"/m") {
					t.Errorf("%s: %v", form, err)
				}
				if errors.Is(err, ErrChanged) && errors.Is(tt.want, unix.EIO) {
					t.Errorf("%s: a change is reported where there is none: %v", form, err)
				}
				if _, err := nar.Check(&out); err == nil {
					t.Errorf("%s: what was written is a whole NAR", form)
				}
			}
		})
	}
}

func faultsAt(when string, hook func(string) error) faults {
	if when == "open" {
		return faults{atOpen: hook}
	}
	return faults{atRead: hook}
}

func TestMeasureOfAChangingTree(t *testing.T) {
	for _, at := range []string{"dir", "link"} {
		root := filepath.Join(t.TempDir(), "root")
		plant(t, root, dir(""), dir("dir"), link("link", "x"))
		path := filepath.Join(root, at)
		_, err := measureWith(context.Background(), root, &faults{atOpen: onceAt(path, func() error { return os.Remove(path) })})
		if !errors.Is(err, ErrChanged) {
			t.Errorf("%s vanishes: %v", at, err)
		}
	}
	root := filepath.Join(t.TempDir(), "root")
	plant(t, root, dir(""), plainFile("file", "x"))
	path := filepath.Join(root, "file")
	if _, err := measureWith(context.Background(), root, &faults{atOpen: onceAt(root, func() error { return os.Remove(path) })}); err != nil {
		t.Errorf("gone before the directory was read: %v", err)
	}
	if err := unix.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Measure(context.Background(), root); err == nil || !strings.Contains(err.Error(), "not a pipe") {
		t.Errorf("a pipe: %v", err)
	}
}

func TestRangeOfAVanishedRoot(t *testing.T) {
	for _, f := range []file{plainFile("", "x"), dir(""), link("", "x")} {
		root := filepath.Join(t.TempDir(), "root")
		plant(t, root, f)
		if f.Type == nar.Directory {
			plant(t, root+"/x", plainFile("", "x"))
		}
		tree, err := Measure(context.Background(), root)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
		if _, err := tree.WriteRange(context.Background(), io.Discard, 0, tree.Size()); !errors.Is(err, ErrChanged) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: %v", f.Type, err)
		}
	}
}

// manySmall plants a tree that keeps all helpers busy.
func manySmall(t testing.TB) string {
	root := filepath.Join(t.TempDir(), "root")
	files := []file{dir("")}
	for d := range 10 {
		name := string(rune('a' + d))
		files = append(files, dir(name))
		for i := range 100 {
			files = append(files, plainFile(name+"/"+strings.Repeat("f", i+1), strings.Repeat("x", 70*i)))
		}
		files = append(files, plainFile(name+"/large", strings.Repeat("y", largeBody+d)))
	}
	plant(t, root, sorted(files...)...)
	return root
}

func openFiles(t testing.TB) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		missing(t, "/proc")
	}
	return len(list)
}

// Whenever the writer fails, its error comes back, and nothing stays open or running (goleak).
func TestDumpToAWriterThatFails(t *testing.T) {
	root := manySmall(t)
	whole, err := dump(root)
	if err != nil {
		t.Fatal(err)
	}
	before := openFiles(t)
	for room := 0; room < len(whole); room += 1 + len(whole)/50 {
		if _, err := Write(t.Context(), &fullWriter{room: room}, root); !errors.Is(err, errFull) {
			t.Fatalf("room for %d bytes: %v", room, err)
		}
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d files were open before, %d after", before, after)
	}
	if n := allHired.Load(); n != 0 {
		t.Errorf("%d helpers are still hired", n)
	}
}

// cancelling cancels after so many bytes, and is slow to take more.
type cancelling struct {
	room   int
	cancel func()
}

func (c *cancelling) Write(p []byte) (int, error) {
	if c.room -= len(p); c.room < 0 {
		c.cancel()
		time.Sleep(time.Millisecond)
	}
	return len(p), nil
}

func TestDumpIsCancelled(t *testing.T) {
	root := manySmall(t)
	before := openFiles(t)
	for _, room := range []int{0, 100, batchSize, 10 * batchSize} {
		ctx, cancel := context.WithCancel(context.Background())
		if _, err := Write(ctx, &cancelling{room, cancel}, root); !errors.Is(err, context.Canceled) {
			t.Errorf("after %d bytes: %v", room, err)
		}
		tree, err := Measure(context.Background(), root)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tree.WriteRange(ctx, io.Discard, 0, tree.Size()); !errors.Is(err, context.Canceled) {
			t.Errorf("a range: %v", err)
		}
		if _, err := Measure(ctx, root); !errors.Is(err, context.Canceled) {
			t.Errorf("measuring: %v", err)
		}
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d files were open before, %d after", before, after)
	}
}

// Many at once are more than there are helpers for: all come to their end.
func TestManyDumps(t *testing.T) {
	root := manySmall(t)
	want, err := dump(root)
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan error)
	for range 2 * allHelpers / helpers {
		go func() {
			got, err := dump(root)
			if err == nil && !bytes.Equal(got, want) {
				err = errors.New("the dump differs")
			}
			results <- err
		}()
	}
	for range 2 * allHelpers / helpers {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// badSink fails as sendfile(2) does, without saying which side it was.
type badSink struct{ bytes.Buffer }

func (b *badSink) ReadFrom(io.Reader) (int64, error) {
	return 0, os.NewSyscallError("sendfile", unix.EIO)
}

func TestWhoseErrorItWas(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	plant(t, root, plainFile("", strings.Repeat("x", 2*largeBody)))
	var path *fs.PathError
	if _, err := Write(t.Context(), &badSink{}, root); !errors.Is(err, unix.EIO) || errors.As(err, &path) {
		t.Errorf("the writer's: %v", err)
	}
	reads := 0
	f := &faults{atRead: func(string) error {
		if reads++; reads == 2 { // the first is before sendfile, the second asks the file
			return unix.EIO
		}
		return nil
	}}
	if _, err := writeWith(context.Background(), &badSink{}, root, f); !errors.Is(err, unix.EIO) || !errors.As(err, &path) || path.Path != root {
		t.Errorf("the file's: %v", err)
	}
}
