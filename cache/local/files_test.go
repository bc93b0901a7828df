package local

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"narwharf/cache/nar"
	"narwharf/cache/nar/dump"
	"narwharf/narinfo"
)

// oneFolder is a Nix store of which only the files are asked.
type oneFolder struct {
	Nix
	root string
}

func (o oneFolder) RealPath(p narinfo.Path) string { return o.root }

// storeOf is a store with one path.
func storeOf(t *testing.T) (s *Store, i *narinfo.Info, root string) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "path")
	logs := t.TempDir()
	if err := errors.Join(os.MkdirAll(root+"/bin", 0o755), os.WriteFile(root+"/bin/tool", bytes.Repeat([]byte("tool "), 1000), 0o755),
		os.WriteFile(root+"/note", []byte("note"), 0o644), os.Symlink("note", root+"/link"), os.Symlink("bin", root+"/to-bin"),
		os.MkdirAll(logs+"/drvs/ab", 0o755), os.WriteFile(logs+"/drvs/ab/c-x.drv", []byte("built"), 0o644), os.WriteFile(logs+"/drvs/ab/d-x.drv.bz2", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := dump.Write(t.Context(), &out, root); err != nil {
		t.Fatal(err)
	}
	return New(oneFolder{root: root}, nil, logs, slog.New(slog.DiscardHandler)), &narinfo.Info{NarSize: int64(out.Len())}, root
}

// TestFiles: names are followed through folders and through no link.
func TestFiles(t *testing.T) {
	s, i, _ := storeOf(t)
	top, _, err := s.File(i.Path, "")
	if err != nil || top.Type != nar.Directory || len(top.Entries) != 4 {
		t.Fatalf("%+v, %v", top, err)
	}
	for name, want := range map[string]nar.Node{
		"bin": {Name: "bin", Type: nar.Directory}, "bin/tool": {Name: "tool", Type: nar.Regular, Size: 5000}, "link": {Name: "link", Type: nar.Symlink, Target: "note"},
	} {
		n, _, err := s.File(i.Path, name)
		if err != nil || n.Name != want.Name || n.Type != want.Type || n.Size != want.Size || n.Target != want.Target {
			t.Errorf("%s: %+v, %v", name, n, err)
		}
	}
	for _, name := range []string{"nothing", "to-bin/tool", "note/x"} {
		if _, _, err := s.File(i.Path, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	got, err := s.ReadFiles(i.Path, []string{"note", "bin", "bin/tool", "to-bin/tool", "link", "nothing"}, 100)
	if err != nil || len(got) != 4 || string(got["note"]) != "note" || string(got["link"]) != "note" || got["bin"] != nil || got["bin/tool"] != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestLogs: plain ones, packed ones, and none.
func TestLogs(t *testing.T) {
	s, _, _ := storeOf(t)
	for drv, want := range map[string]struct {
		bzip2 bool
		err   error
	}{"abc-x.drv": {}, "abd-x.drv": {bzip2: true}, "abe-x.drv": {err: fs.ErrNotExist}} {
		f, bzip2, err := s.Log(drv)
		if !errors.Is(err, want.err) || err == nil && bzip2 != want.bzip2 {
			t.Errorf("%s: bzip2 %v, %v", drv, bzip2, err)
		}
		if err == nil {
			f.Close()
		}
	}
}

// TestWriteNAR: the whole and parts are those of the dump, and what is not what the
// database says never comes out whole.
func TestWriteNAR(t *testing.T) {
	s, i, root := storeOf(t)
	write := func(out *bytes.Buffer, from, to int64) error {
		if from == 0 && to == i.NarSize {
			return s.WriteNAR(t.Context(), out, i)
		}
		tree, err := s.Measure(t.Context(), i)
		if err != nil {
			return err
		}
		return s.WriteRange(t.Context(), out, tree, from, to)
	}
	var whole bytes.Buffer
	if err := write(&whole, 0, i.NarSize); err != nil {
		t.Fatal(err)
	}
	for _, part := range [][2]int64{{0, 1}, {0, i.NarSize - 1}, {7, 2000}, {i.NarSize - 5, i.NarSize}} {
		var out bytes.Buffer
		if err := write(&out, part[0], part[1]); err != nil || !bytes.Equal(out.Bytes(), whole.Bytes()[part[0]:part[1]]) {
			t.Errorf("%v: %d bytes, %v", part, out.Len(), err)
		}
	}
	if err := os.WriteFile(root+"/note", []byte("another, longer note"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, from := range []int64{0, 1} {
		var out bytes.Buffer
		if err := write(&out, from, i.NarSize); !errors.Is(err, dump.ErrChanged) || int64(out.Len()) >= i.NarSize-from {
			t.Errorf("%d bytes of a path that was changed, %v", out.Len(), err)
		}
	}
}
