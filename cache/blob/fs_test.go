package blob_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"narwharf/cache/blob"
	"narwharf/cache/blob/blobtest"
)

// scratch is a folder in memory, where there is one: these tests sync a lot,
// and that a disk keeps what was synced is not what they are about.
func scratch(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "narwharf-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// newFS opens a store whose end is checked: no temporary file, no room that
// stays taken.
func newFS(t *testing.T) *blob.FS {
	dir := scratch(t)
	s, err := blob.NewFS(filepath.Join(dir, "cache"), filepath.Join(dir, "tmp"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustBeTidy(t, s) })
	return s
}

func mustBeTidy(t *testing.T, s *blob.FS) {
	t.Helper()
	if entries, err := os.ReadDir(s.Temp()); err != nil || len(entries) > 0 {
		t.Errorf("left in the temporary folder: %v, %v", entries, err)
	}
	if n := s.Promised(); n != 0 {
		t.Errorf("%d bytes are still promised", n)
	}
}

func TestFSContract(t *testing.T) {
	blobtest.Contract(t, func(t *testing.T) blob.Store { return newFS(t) })
}

// sendfile(2) needs the bare file: a wrapper would cost half the throughput.
func TestFSOpenGivesAnOSFile(t *testing.T) {
	s := newFS(t)
	blobtest.Put(t, s, "nar/a", "x")
	f, err := s.Open("nar/a")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, ok := f.Content.(*os.File); !ok {
		t.Errorf("Content is a %T", f.Content)
	}
}

// record notes the steps that fn takes on the disk.
func record(s *blob.FS, fn func()) (ops []string) {
	s.Fault = func(op, _ string) error {
		ops = append(ops, op)
		return nil
	}
	fn()
	s.Fault = nil
	return ops
}

// failAt makes the nth step fail, counted from 0.
func failAt(s *blob.FS, n int, cause error) {
	s.Fault = func(op, _ string) error {
		if n--; n == -1 {
			return fmt.Errorf("injected at %s: %w", op, cause)
		}
		return nil
	}
}

func TestFSStepsOfAWrite(t *testing.T) {
	s := newFS(t)
	first := record(s, func() { blobtest.Put(t, s, "nar/a", "x") })
	want := []string{"syncdir", "create", "write", "sync", "rename", "syncdir"}
	if !slices.Equal(first, want) {
		t.Errorf("the first file of a folder: %v, want %v", first, want)
	}
	second := record(s, func() { blobtest.Put(t, s, "nar/b", "x") })
	if !slices.Equal(second, want[1:]) {
		t.Errorf("the second: %v, want %v", second, want[1:])
	}
	// A deep folder is durable only if each one above it is.
	var synced []string
	s.Fault = func(op, name string) error {
		if op == "syncdir" {
			synced = append(synced, strings.TrimPrefix(name, s.Root()))
		}
		return nil
	}
	blobtest.Put(t, s, "build-trace-v2/drv/out.doi", "x")
	s.Fault = nil
	if want := []string{"", "/build-trace-v2", "/build-trace-v2/drv"}; !slices.Equal(synced, want) {
		t.Errorf("synced %q, want %q", synced, want)
	}
}

func TestFSFaultAtEveryStep(t *testing.T) {
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT} {
		for _, old := range []string{"", "old content"} {
			write := func(s *blob.FS) error { return blob.WriteFile(s, "nar/a", []byte("new")) }
			prepare := func(t *testing.T) *blob.FS {
				s := newFS(t)
				if old != "" {
					blobtest.Put(t, s, "nar/a", old)
				}
				return s
			}
			counting := prepare(t)
			ops := record(counting, func() {
				if err := write(counting); err != nil {
					t.Fatal(err)
				}
			})
			for n, op := range ops {
				t.Run(fmt.Sprintf("%v/old=%t/%d-%s", cause, old != "", n, op), func(t *testing.T) {
					s := prepare(t)
					failAt(s, n, cause)
					err := write(s)
					s.Fault = nil
					if !errors.Is(err, cause) || !strings.Contains(err.Error(), "nar/a") {
						t.Errorf("error %v, want one that names the file and the cause", err)
					}
					if full := !errors.Is(cause, syscall.EIO); errors.Is(err, blob.ErrFull) != full {
						t.Errorf("error %v: is ErrFull: %t, want %t", err, !full, full)
					}
					if old == "" {
						blobtest.MustMiss(t, s, "nar/a")
					} else {
						blobtest.MustHold(t, s, "nar/a", old)
					}
					mustBeTidy(t, s)
					if err := write(s); err != nil { // a fault that passed leaves nothing behind
						t.Fatal(err)
					}
					blobtest.MustHold(t, s, "nar/a", "new")
				})
			}
		}
	}
}

func TestFSFaultOfRemove(t *testing.T) {
	s := newFS(t)
	blobtest.Put(t, s, "nar/a", "x")
	failAt(s, 0, syscall.EIO)
	if err := s.Remove("nar/a"); !errors.Is(err, syscall.EIO) {
		t.Errorf("Remove: %v", err)
	}
	blobtest.MustHold(t, s, "nar/a", "x")
	failAt(s, 1, syscall.EIO) // after unlink, at the folder's sync
	if err := s.Remove("nar/a"); !errors.Is(err, syscall.EIO) {
		t.Errorf("Remove: %v, want an error: the file may come back in a crash", err)
	}
	failAt(s, 1, syscall.EIO) // again: it is gone, and still not for certain
	if err := s.Remove("nar/a"); !errors.Is(err, syscall.EIO) {
		t.Errorf("Remove: %v, want an error: the file may come back in a crash", err)
	}
	s.Fault = nil
	if err := s.Remove("nar/a"); err != nil {
		t.Errorf("Remove: %v", err)
	}
}

// One folder is synced once for all that goes from it.
func TestFSRemoveSyncsOnce(t *testing.T) {
	s := newFS(t)
	for _, name := range []string{"a", "b", "nar/a", "nar/b"} {
		blobtest.Put(t, s, name, "x")
	}
	var ops []string
	s.Fault = func(op, _ string) error { ops = append(ops, op); return nil }
	if err := s.Remove("a", "nar/a", "b", "nar/b", "nar/c"); err != nil {
		t.Fatal(err)
	}
	want := "remove remove remove remove remove syncdir syncdir"
	if got := strings.Join(ops, " "); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A short write by the kernel, as on a disk that fills up, is no success.
func TestFSStickyError(t *testing.T) {
	s := newFS(t)
	w, err := s.Create("a", 6)
	if err != nil {
		t.Fatal(err)
	}
	blobtest.MustWrite(t, w, "abc")
	failAt(s, 0, syscall.ENOSPC)
	_, err = w.Write([]byte("def"))
	s.Fault = nil
	if !errors.Is(err, blob.ErrFull) {
		t.Errorf("Write on a full disk: %v", err)
	}
	if _, err := w.Write([]byte("def")); !errors.Is(err, blob.ErrFull) {
		t.Errorf("a later Write: %v, want the same error", err)
	}
	if err := w.Commit(); !errors.Is(err, blob.ErrFull) {
		t.Errorf("Commit: %v, want the same error", err)
	}
	blobtest.MustMiss(t, s, "a")
}

// Room goes to what comes in: who announces all that there is and sends little keeps
// nobody out, and whoever comes to the reserve first is stopped there.
func TestFSPromisesRoom(t *testing.T) {
	s := newFS(t)
	free, err := s.Free()
	if err != nil || free <= 0 {
		t.Fatalf("Free: %d, %v", free, err)
	}
	if _, err := s.Create("x", free+1<<40); !errors.Is(err, blob.ErrFull) {
		t.Errorf("more than there is: %v, want ErrFull", err)
	}
	half := free/2 + 64<<20
	w, err := s.Create("a", half)
	if err != nil {
		t.Fatal(err)
	}
	blobtest.MustWrite(t, w, "0123456789")
	if got := s.Promised(); got != blob.RoomStep-10 {
		t.Errorf("promised %d after 10 bytes of %d", got, half)
	}
	other, err := s.Create("b", half)
	if err != nil {
		t.Fatalf("another half and more: %v", err)
	}
	chunk := make([]byte, 1<<20)
	for range 2*blob.RoomStep/len(chunk) + 1 {
		blobtest.MustWrite(t, other, string(chunk))
	}
	if got := s.Promised(); got < blob.RoomStep || got > 4*blob.RoomStep {
		t.Errorf("promised %d after %d bytes", got, 2*blob.RoomStep)
	}
	s.Reserve(free) // the disk fills up meanwhile
	for range 4 * blob.RoomStep / len(chunk) {
		if _, err = other.Write(chunk); err != nil {
			break
		}
	}
	if !errors.Is(err, blob.ErrFull) {
		t.Errorf("at the reserve: %v, want ErrFull", err)
	}
	s.Reserve(-free)
	other.Abort()
	w.Abort()
	mustBeTidy(t, s)
}

// A write of more than is promised ahead takes its room at once, however large it is.
func TestFSLargeWrites(t *testing.T) {
	s := newFS(t)
	for _, size := range []int{blob.RoomStep - 1, blob.RoomStep + 1, 3*blob.RoomStep + 5} {
		w, err := s.Create("large", int64(size)+10)
		if err != nil {
			t.Fatal(err)
		}
		blobtest.MustWrite(t, w, strings.Repeat("x", size))
		blobtest.MustWrite(t, w, strings.Repeat("y", 20)) // ten of them unannounced
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		if st, err := s.Stat("large"); err != nil || st.Size != int64(size)+20 || s.Promised() != 0 {
			t.Errorf("%+v, %v, promised %d", st, err, s.Promised())
		}
	}
	w, err := s.Create("large", 2*blob.RoomStep)
	if err != nil {
		t.Fatal(err)
	}
	s.Reserve(1 << 60) // the disk fills up meanwhile
	if _, err := w.Write(make([]byte, 2*blob.RoomStep)); !errors.Is(err, blob.ErrFull) {
		t.Errorf("%v, want ErrFull", err)
	}
	s.Reserve(-(1 << 60))
	w.Abort()
	mustBeTidy(t, s)
}

// Whoever does not say how much will come is stopped at the reserve too.
func TestFSReserveHoldsForUnknownSizes(t *testing.T) {
	s := newFS(t)
	w, err := s.Create("a", -1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	s.Reserve(1 << 62) // the disk fills up meanwhile
	chunk := make([]byte, 1<<20)
	for range blob.UnaskedStep / len(chunk) {
		if _, err = w.Write(chunk); err != nil {
			break
		}
	}
	if !errors.Is(err, blob.ErrFull) {
		t.Errorf("%d bytes below the reserve: %v, want ErrFull", blob.UnaskedStep, err)
	}
	if _, err := s.Create("b", -1); !errors.Is(err, blob.ErrFull) {
		t.Errorf("Create without room: %v, want ErrFull", err)
	}
}

func TestFSCleanAndForeignFiles(t *testing.T) {
	s := newFS(t)
	// What a run of the same process id left, as in a container.
	for i := range 3 {
		left := filepath.Join(s.Temp(), fmt.Sprintf("%d.%d", os.Getpid(), i+1))
		if err := os.WriteFile(left, []byte("left"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	blobtest.Put(t, s, "a", "new")
	blobtest.MustHold(t, s, "a", "new")
	if err := s.Clean(); err != nil {
		t.Fatal(err)
	}
	mustBeTidy(t, s)
	for _, name := range []string{".hidden", "dir/x"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(s.Root(), name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.Root(), name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a", filepath.Join(s.Root(), "link")); err != nil {
		t.Fatal(err)
	}
	if got := blobtest.List(t, s, ""); !slices.Equal(got, []string{"a"}) {
		t.Errorf("the top has %v, want a alone", got)
	}
}

// Somebody removes folders under a running server: the next write makes them again,
// also if they go while it is written.
func TestFSFolderRemovedMeanwhile(t *testing.T) {
	for _, name := range []string{"log/a", "build-trace-v2/drv/out.doi"} {
		for folder, gone := range map[string]func(s *blob.FS) string{
			"its own":       func(s *blob.FS) string { return filepath.Dir(filepath.Join(s.Root(), name)) },
			"the top one":   func(s *blob.FS) string { return filepath.Join(s.Root(), strings.Split(name, "/")[0]) },
			"the temporary": func(s *blob.FS) string { return s.Temp() },
		} {
			t.Run(name+", "+folder, func(t *testing.T) {
				s := newFS(t)
				blobtest.Put(t, s, name, "x")
				if err := os.RemoveAll(gone(s)); err != nil {
					t.Fatal(err)
				}
				blobtest.Put(t, s, name, "y")
				blobtest.MustHold(t, s, name, "y")
				if folder == "the temporary" {
					return
				}
				w, err := s.Create(name, 1)
				if err != nil {
					t.Fatal(err)
				}
				blobtest.MustWrite(t, w, "z")
				if err := os.RemoveAll(gone(s)); err != nil {
					t.Fatal(err)
				}
				if err := w.Commit(); err != nil {
					t.Fatal(err)
				}
				blobtest.MustHold(t, s, name, "z")
			})
		}
	}
	// The store itself is another matter: its disk may be away.
	s := newFS(t)
	if err := os.RemoveAll(s.Root()); err != nil {
		t.Fatal(err)
	}
	if err := blob.WriteFile(s, "log/a", []byte("x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without the store: %v", err)
	}
}

func TestNewFSOnAFile(t *testing.T) {
	file := filepath.Join(scratch(t), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := blob.NewFS(file, filepath.Join(filepath.Dir(file), "tmp")); err == nil {
		t.Error("a file passed for a folder")
	}
}
