package nar

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

func TestRestoreSamples(t *testing.T) {
	for name, want := range samples(t) {
		dst := filepath.Join(t.TempDir(), "dst")
		if err := Restore(bytes.NewReader(want), dst); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := dump(dst)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: the dump of what was restored differs (%v)", name, err)
		}
	}
}

func TestRestoreModes(t *testing.T) {
	dst := filepath.Join(t.TempDir(), "dst")
	if err := Restore(bytes.NewReader(write(t, dir(""), plainFile("a", "a"), exeFile("b", "b"))), dst); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"": 0o755, "a": 0o644, "b": 0o755} {
		info, err := os.Stat(filepath.Join(dst, name))
		if err != nil || info.Mode().Perm()&^0o022 != want {
			t.Errorf("%q has mode %v (%v), want %v less the umask", name, info.Mode(), err, want)
		}
	}
}

// Whatever stops it, nothing stays.
func TestRestoreRemovesItsTraces(t *testing.T) {
	broken := errors.New("the wire was cut")
	for name, b := range samples(t) {
		for n := 0; n <= len(b); n += 1 + len(b)/50 {
			tmp := t.TempDir()
			dst := filepath.Join(tmp, "dst")
			for _, tail := range []io.Reader{iotest.ErrReader(broken), strings.NewReader(""), strings.NewReader("junk junk junk junk ")} {
				if n == len(b) && tail != nil {
					tail = strings.NewReader("j")
				}
				if err := Restore(io.MultiReader(bytes.NewReader(b[:n]), tail), dst); err == nil || !strings.HasPrefix(err.Error(), "restore nar to "+dst+": ") {
					t.Fatalf("%s cut off after %d bytes: %v", name, n, err)
				}
				left, err := os.ReadDir(tmp)
				if err != nil || len(left) > 0 {
					t.Fatalf("%s cut off after %d bytes: %v is left (%v)", name, n, left, err)
				}
			}
		}
	}
}

// What is at dst already is neither changed nor removed, whatever it is.
func TestRestoreTouchesNothing(t *testing.T) {
	for _, there := range [][]file{
		{plainFile("", "mine")}, {dir("")}, {dir(""), plainFile("f", "mine")}, {link("", "nowhere")},
	} {
		for name, b := range samples(t) {
			for _, slash := range []string{"", "/", "/."} {
				dst := filepath.Join(t.TempDir(), "dst")
				plant(t, dst, there...)
				if err := Restore(bytes.NewReader(b), dst+slash); err == nil {
					t.Errorf("%s is restored over %+v", name, there)
				}
				got, err := dump(dst)
				if err != nil || !bytes.Equal(got, write(t, there...)) {
					t.Errorf("%s at dst%s has changed what was there (%v)", name, slash, err)
				}
			}
		}
	}
	if err := Restore(bytes.NewReader(write(t, dir(""))), filepath.Join(t.TempDir(), "no", "dst")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a directory that is not there: %v", err)
	}
}

// A link made by the archive is never walked through, even if the reader would let it: the
// directory in which a name is made is held open, not looked up.
func TestRestoreDoesNotFollow(t *testing.T) {
	tmp := t.TempDir()
	outside, dst := filepath.Join(tmp, "outside"), filepath.Join(tmp, "dst")
	plant(t, outside, dir(""))
	b := write(t, dir(""), dir("a"), plainFile("a/1", strings.Repeat("x", bufferSize*2)), plainFile("a/2", "2"), dir("b"), plainFile("b/f", "3"))
	swap := func() { // someone puts a link where the directory was
		if err := errors.Join(os.Rename(dst+"/a", dst+"/z"), os.Symlink(outside, dst+"/a"), os.Symlink(outside, dst+"/b")); err != nil {
			t.Error(err)
		}
	}
	src := io.MultiReader(bytes.NewReader(b[:bufferSize]), &hookReader{hook: swap}, bytes.NewReader(b[bufferSize:]))
	if err := Restore(src, dst); !errors.Is(err, fs.ErrExist) {
		t.Errorf("with links in its way: %v", err)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("made outside of dst: %v (%v)", left, err)
	}
}

// hookReader is empty; it calls hook when that is found out.
type hookReader struct{ hook func() }

func (h *hookReader) Read([]byte) (int, error) {
	if h.hook != nil {
		h.hook()
		h.hook = nil
	}
	return 0, io.EOF
}
