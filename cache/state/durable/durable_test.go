package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// write is WriteFile with a fault.
func write(name, content string, o Options) error {
	f, err := Create(name, o)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write([]byte(content)); err != nil {
		return err
	}
	return f.Commit()
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "tokens")
	for _, content := range []string{"one", "", strings.Repeat("x", 1<<20)} {
		if err := WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := read(t, name); got != content {
			t.Errorf("%d bytes, want %d", len(got), len(content))
		}
	}
	if st, err := os.Stat(name); err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"tokens"}) {
		t.Errorf("the folder has %q", got)
	}
	if err := WriteFile(filepath.Join(dir, "none", "x"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "none/x") {
		t.Errorf("without a folder: %v", err)
	}
}

// A link of the target's name is replaced, and what it leads to is left alone.
func TestLinkIsNotFollowed(t *testing.T) {
	dir := t.TempDir()
	other, name := filepath.Join(dir, "other"), filepath.Join(dir, "name")
	for _, to := range []string{other, filepath.Join(dir, "nowhere"), dir} {
		if err := errors.Join(os.WriteFile(other, []byte("theirs"), 0o600), os.Symlink(to, name)); err != nil {
			t.Fatal(err)
		}
		if err := WriteFile(name, []byte("ours"), 0o600); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Lstat(name); err != nil || !st.Mode().IsRegular() || read(t, name) != "ours" || read(t, other) != "theirs" {
			t.Errorf("a link to %s: %v, %v; the other file has %q", to, st.Mode(), err, read(t, other))
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// Each step fails in turn, with a file to replace and without: what was there stays,
// and nothing is left beside it.
func TestFaultAtEveryStep(t *testing.T) {
	boom := errors.New("boom")
	for _, was := range []string{"", "old"} {
		for _, beside := range []bool{true, false} {
			for _, at := range []string{StepCreate, StepWrite, StepSync, StepRename, StepSyncDir} {
				t.Run(fmt.Sprintf("%q/%t/%s", was, beside, at), func(t *testing.T) {
					dir, temp := t.TempDir(), ""
					if !beside {
						temp = t.TempDir()
					}
					name := filepath.Join(dir, "name")
					var want []string
					if was != "" {
						want = []string{"name"}
						if err := WriteFile(name, []byte(was), 0o600); err != nil {
							t.Fatal(err)
						}
					}
					var steps []string
					o := Options{Mode: 0o600, Temp: temp, Fault: func(step string) error {
						steps = append(steps, step)
						if step == at {
							return boom
						}
						return nil
					}}
					if err := write(name, "new", o); !errors.Is(err, boom) {
						t.Errorf("error %v", err)
					}
					if steps[len(steps)-1] != at {
						t.Errorf("steps %q", steps)
					}
					if got := names(t, dir); read(t, name) != was || !slices.Equal(got, want) {
						t.Errorf("the folder has %q, the file %q", got, read(t, name))
					}
					if temp != "" && len(names(t, temp)) > 0 {
						t.Errorf("left %q", names(t, temp))
					}
					o.Fault = nil
					if err := write(name, "new", o); err != nil || read(t, name) != "new" {
						t.Errorf("once it is over: %v, %q", err, read(t, name))
					}
				})
			}
		}
	}
}

func TestAbort(t *testing.T) {
	dir := t.TempDir()
	f, err := Create(filepath.Join(dir, "name"), Options{Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	f.Abort()
	f.Abort()
	if got := names(t, dir); len(got) > 0 {
		t.Errorf("left %q", got)
	}
	if err := f.Commit(); err == nil {
		t.Error("Commit after Abort: no error")
	}
}

func TestSyncDir(t *testing.T) {
	if err := SyncDir(t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := SyncDir(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of no folder: %v", err)
	}
}

// TestSweep: what a killed writer left goes once it is old; what is written now, and other
// files, stay.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if _, err := Create(filepath.Join(dir, name), Options{Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteFile(filepath.Join(dir, "c"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * time.Hour)
	for _, name := range names(t, dir)[1:] {
		if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(dir, time.Hour); err != nil {
		t.Fatal(err)
	}
	if left := names(t, dir); len(left) != 2 || !strings.HasPrefix(left[0], tempPrefix) || left[1] != "c" {
		t.Errorf("left are %q", left)
	}
}
