package dump

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"narwharf/cache/nar"
)

// plant makes the files under root in the file system.
func plant(t testing.TB, root string, files ...file) {
	t.Helper()
	for _, f := range files {
		path := root
		if f.Path != "" {
			path += "/" + f.Path
		}
		var err error
		switch f.Type {
		case nar.Directory:
			err = os.Mkdir(path, 0o755)
		case nar.Symlink:
			err = os.Symlink(f.Target, path)
		default:
			mode := fs.FileMode(0o644)
			if f.Executable {
				mode = 0o755
			}
			err = os.WriteFile(path, []byte(f.Body), mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func dump(root string) ([]byte, error) {
	var out bytes.Buffer
	size, err := Write(context.Background(), &out, root)
	if err == nil && size != int64(out.Len()) {
		return nil, errors.New("Dump returns another size than it wrote")
	}
	return out.Bytes(), err
}

func TestDumpSamples(t *testing.T) {
	for name, files := range samples() {
		root := filepath.Join(t.TempDir(), "root")
		plant(t, root, files...)
		got, err := dump(root)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(got, write(files...)) {
			t.Errorf("%s: the dump of the planted tree differs", name)
		}
	}
}

// Only the owner's execute bit counts (S_IXUSR), and no other mode does.
func TestDumpModes(t *testing.T) {
	for mode, executable := range map[fs.FileMode]bool{
		0o444: false, 0o644: false, 0o666: false, 0o411: false, 0o455: false,
		0o555: true, 0o744: true, 0o500: true, 0o755 | fs.ModeSetuid: true, 0o644 | fs.ModeSticky: false,
	} {
		path := filepath.Join(t.TempDir(), "f")
		plant(t, path, plainFile("", "x"))
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		got, err := dump(path)
		if err != nil {
			t.Fatal(err)
		}
		want := plainFile("", "x")
		want.Executable = executable
		if !bytes.Equal(got, write(want)) {
			t.Errorf("mode %v: executable is not %v", mode, executable)
		}
	}
}

func TestDumpLargeBodies(t *testing.T) {
	big := strings.Repeat("0123456789abcde", batchSize/4)
	files := []file{dir("")}
	for i, n := range []int{batchSize - headRoom, batchSize - 1, batchSize, batchSize + 1, len(big)} {
		files = append(files, plainFile(string(rune('a'+i)), big[:n]))
	}
	root := filepath.Join(t.TempDir(), "root")
	plant(t, root, files...)
	got, err := dump(root)
	if err != nil || !bytes.Equal(got, write(files...)) {
		t.Errorf("the dump differs (%v)", err)
	}
}

func TestDumpRefuses(t *testing.T) {
	tmp := t.TempDir()
	in := func(name string) string {
		root := filepath.Join(tmp, name)
		plant(t, root, dir(""), plainFile("a", "x"))
		return filepath.Join(root, "special")
	}
	if err := unix.Mkfifo(in("pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", in("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	deep := filepath.Join(tmp, "deep")
	plant(t, deep, dir(""))
	if err := os.MkdirAll(deep+strings.Repeat("/d", nar.MaxDepth), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"pipe":    "pipe/special: a nar holds files, directories and links, not a pipe",
		"socket":  "socket/special: a nar holds files, directories and links, not a socket",
		"deep":    "it lies 64 directories deep: nix accepts at most 63",
		"missing": "missing: no such file or directory",
	} {
		if _, err := dump(filepath.Join(tmp, name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := dump(os.DevNull); err == nil || !strings.Contains(err.Error(), "not a device") {
		t.Errorf("%s: %v", os.DevNull, err)
	}
	if _, err := Write(t.Context(), &fullWriter{room: 10}, filepath.Dir(in("full"))); !errors.Is(err, errFull) {
		t.Errorf("a full destination: %v", err)
	}
}

// changing does something to a file when the first byte of the dump is written, which is after
// the file was opened and before all of it was read.
type changing struct{ change func() }

func (c *changing) Write(p []byte) (int, error) {
	if c.change != nil {
		c.change()
		c.change = nil
	}
	return len(p), nil
}

func TestDumpWhileTheFileChanges(t *testing.T) {
	const size = 4 * batchSize
	path := filepath.Join(t.TempDir(), "f")
	for name, tt := range map[string]struct {
		change func() error
		want   string
	}{
		"grows": {func() error { return os.Truncate(path, size+1) }, "it grew beyond its 524288 bytes"},
		"shrinks": {func() error { return os.Truncate(path, size-10) },
			"it lost 10 of its 524288 bytes"},
		"stays": {func() error { return nil }, ""},
	} {
		plant(t, path, plainFile("", strings.Repeat("x", size)))
		_, err := Write(t.Context(), &changing{func() {
			if err := tt.change(); err != nil {
				t.Error(err)
			}
		}}, path)
		if (err == nil) != (tt.want == "") || err != nil && !strings.HasSuffix(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A file that lies about its size is noticed.
func TestDumpOfALie(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil { // its size is said to be 0
		missing(t, "/proc")
	}
	if _, err := dump("/proc/self/stat"); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "it grew beyond its 0 bytes") {
		t.Errorf("a file that lies about its size: %v", err)
	}
}

// An entry that turns into something else between the look and the open is not followed.
func TestDumpDoesNotFollow(t *testing.T) {
	tmp := t.TempDir()
	plant(t, filepath.Join(tmp, "secret"), plainFile("", "secret"))
	plant(t, filepath.Join(tmp, "dir"), dir(""))
	plant(t, filepath.Join(tmp, "to-file"), link("", "secret"))
	plant(t, filepath.Join(tmp, "to-dir"), link("", "dir"))
	if err := unix.Mkfifo(filepath.Join(tmp, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	in, err := outside(false, nil).open(tmp)
	if err != nil {
		t.Fatal(err)
	}
	defer in.release()
	for _, tt := range []struct {
		name string
		typ  nar.Type
		want error
	}{
		{"to-file", nar.Regular, unix.ELOOP}, {"to-dir", nar.Directory, unix.ENOTDIR}, {"secret", nar.Directory, unix.ENOTDIR},
		{"secret", nar.Symlink, unix.EINVAL}, {"pipe", nar.Regular, nil}, {"dir", nar.Regular, nil},
		{"gone", nar.Regular, fs.ErrNotExist}, {"gone", nar.Directory, fs.ErrNotExist}, {"gone", nar.Symlink, fs.ErrNotExist}, {"gone", 0, fs.ErrNotExist},
	} {
		b, w := newBatch(), &walk{}
		err := w.enter(b, in, dirent{tt.name, tt.typ})
		if err == nil {
			b.render()
			err = b.err
		}
		if !errors.Is(err, ErrChanged) || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s taken for %v: %v", tt.name, tt.typ, err)
		}
		var path *fs.PathError
		if !errors.As(err, &path) || path.Path != filepath.Join(tmp, tt.name) {
			t.Errorf("%s taken for %v: the error has no path: %v", tt.name, tt.typ, err)
		}
		b.free()
		w.close()
	}
}

// Some file systems do not tell types in directories.
func TestWalkWithoutTypes(t *testing.T) {
	tmp := t.TempDir()
	plant(t, tmp+"/root", dir(""), dir("d"), exeFile("f", "x"), link("l", "f"))
	in, err := outside(false, nil).open(tmp + "/root")
	if err != nil {
		t.Fatal(err)
	}
	defer in.release()
	for name, want := range map[string]nar.Type{"d": nar.Directory, "f": nar.Regular, "l": nar.Symlink} {
		b, w := newBatch(), &walk{}
		if err := w.enter(b, in, dirent{name: name}); err != nil || len(b.steps) != 1 || b.steps[0].typ != want {
			t.Errorf("%s: %+v (%v)", name, b.steps, err)
		}
		b.free()
		w.close()
	}
}
