// Package blobtest holds every blob.Store to what the interface promises. A store's
// own tests add what is its own: the files of one, the requests of another.
package blobtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/blob"
)

// Files is how many files a folder gets in the test of List: more than a store may read
// at once.
const Files = 1100

// Contract holds a Store to what the interface says. open makes an empty one.
func Contract(t *testing.T, open func(t *testing.T) blob.Store) {
	t.Run("a file is there after Commit and not before", func(t *testing.T) {
		s := open(t)
		w, err := s.Create("nar/a", 5)
		if err != nil {
			t.Fatal(err)
		}
		MustWrite(t, w, "hel")
		MustMiss(t, s, "nar/a")
		MustWrite(t, w, "lo")
		MustMiss(t, s, "nar/a")
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		w.Abort() // deferred in every caller
		MustHold(t, s, "nar/a", "hello")
		if err := w.Commit(); err == nil {
			t.Error("a second Commit passed")
		}
		if _, err := w.Write([]byte("x")); err == nil {
			t.Error("Write after Commit passed")
		}
		MustHold(t, s, "nar/a", "hello")
	})

	t.Run("Abort leaves what was there", func(t *testing.T) {
		s := open(t)
		Put(t, s, "a", "old")
		for _, name := range []string{"a", "b"} {
			w, err := s.Create(name, 3)
			if err != nil {
				t.Fatal(err)
			}
			MustWrite(t, w, "new")
			w.Abort()
			w.Abort()
			if err := w.Commit(); err == nil {
				t.Errorf("%s: Commit after Abort passed", name)
			}
		}
		MustHold(t, s, "a", "old")
		MustMiss(t, s, "b")
	})

	t.Run("replacing is atomic for who has the old file open", func(t *testing.T) {
		s := open(t)
		Put(t, s, "a", "old")
		f, err := s.Open("a")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		Put(t, s, "a", "newer")
		text, err := io.ReadAll(f.Content)
		if err != nil || string(text) != "old" || f.Size != 3 {
			t.Errorf("the open file has %q (size %d), %v; want the old content", text, f.Size, err)
		}
		MustHold(t, s, "a", "newer")
	})

	t.Run("more may come than was announced", func(t *testing.T) {
		s := open(t)
		for _, size := range []int64{-1, 0, 2} {
			name := fmt.Sprint("size", size)
			w, err := s.Create(name, size)
			if err != nil {
				t.Fatal(err)
			}
			MustWrite(t, w, "12345")
			if err := w.Commit(); err != nil {
				t.Fatal(err)
			}
			MustHold(t, s, name, "12345")
		}
	})

	t.Run("what cannot fit is refused at once", func(t *testing.T) {
		s := open(t)
		if _, err := s.Create("a", 1<<60); !errors.Is(err, blob.ErrFull) {
			t.Errorf("Create of an exbibyte: %v, want ErrFull", err)
		}
		Put(t, s, "a", "small") // and the refusal took no room
	})

	t.Run("bad names", func(t *testing.T) {
		s := open(t)
		bad := []string{
			"", ".", "..", "/a", "a/", "a//b", "../a", "a/../b", "a/..", "./a", "a/./b",
			".hidden", "a/.hidden", "nul\x00", strings.Repeat("x", 256), "a/" + strings.Repeat("x", 256),
		}
		for _, name := range bad {
			_, create := s.Create(name, 1)
			_, open := s.Open(name)
			_, stat := s.Stat(name)
			for op, err := range map[string]error{"Create": create, "Open": open, "Stat": stat, "Remove": s.Remove(name)} {
				if !errors.Is(err, fs.ErrInvalid) {
					t.Errorf("%s(%q): %v, want fs.ErrInvalid", op, name, err)
				}
			}
			if name == "" { // the top, for List
				continue
			}
			if err := s.List(name, func(blob.Info) error { return nil }); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("List(%q): %v, want fs.ErrInvalid", name, err)
			}
		}
		Put(t, s, "log/"+strings.Repeat("x", 255), "longest")
	})

	t.Run("a missing name", func(t *testing.T) {
		s := open(t)
		Put(t, s, "nar/other", "x")
		for _, name := range []string{"a", "nar/a", "no-such-folder/a"} {
			MustMiss(t, s, name)
			if err := s.Remove(name); err != nil {
				t.Errorf("Remove(%s): %v, want nil", name, err)
			}
		}
		if _, err := s.Open("nar"); err == nil {
			t.Error("Open of a folder passed")
		}
		if _, err := s.Stat("nar"); err == nil {
			t.Error("Stat of a folder passed")
		}
	})

	t.Run("List", func(t *testing.T) {
		s := open(t)
		if got := List(t, s, "nar"); got != nil {
			t.Errorf("a missing folder has %v", got)
		}
		var want []string
		for i := range Files {
			name := fmt.Sprintf("nar/%04d", i)
			Put(t, s, name, "x")
			want = append(want, name)
		}
		Put(t, s, "top", "abc")
		Put(t, s, "nar/deeper/x", "x")
		if got := List(t, s, "nar"); !slices.Equal(got, want) {
			t.Errorf("nar has %d files, want %d", len(got), len(want))
		}
		if got := List(t, s, ""); !slices.Equal(got, []string{"top"}) {
			t.Errorf("the top has %v", got)
		}
		stop := errors.New("stop")
		calls := 0
		err := s.List("nar", func(blob.Info) error { calls++; return stop })
		if !errors.Is(err, stop) || calls != 1 {
			t.Errorf("List went on to %d calls and returned %v", calls, err)
		}
	})

	t.Run("Folders", func(t *testing.T) {
		s := open(t)
		if got, err := s.Folders("channels"); got != nil || err != nil {
			t.Errorf("a missing folder has %v, %v", got, err)
		}
		for _, name := range []string{"channels/web/1", "channels/web/2", "channels/db/deep/er", "channels/file"} {
			Put(t, s, name, "x")
		}
		got, err := s.Folders("channels")
		slices.Sort(got)
		if err != nil || !slices.Equal(got, []string{"db", "web"}) {
			t.Errorf("channels has %v, %v", got, err)
		}
		if got, err := s.Folders(""); err != nil || !slices.Contains(got, "channels") {
			t.Errorf("the top has %v, %v", got, err)
		}
		for _, dir := range []string{"..", ".x", "a/../b"} {
			if _, err := s.Folders(dir); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("Folders(%q): %v", dir, err)
			}
		}
	})

	t.Run("Stat, Remove", func(t *testing.T) {
		s := open(t)
		before := time.Now().Add(-time.Second)
		Put(t, s, "nar/a", "12345")
		st, err := s.Stat("nar/a")
		if err != nil || st.Name != "nar/a" || st.Size != 5 || st.ModTime.Before(before) {
			t.Errorf("Stat: %+v, %v", st, err)
		}
		MustHold(t, s, "nar/a", "12345")
		if err := s.Remove("nar/a"); err != nil {
			t.Fatal(err)
		}
		MustMiss(t, s, "nar/a")
	})

	t.Run("several go at once", func(t *testing.T) {
		s := open(t)
		for _, name := range []string{"a", "b", "nar/a", "nar/b"} {
			Put(t, s, name, "x")
		}
		if err := s.Remove(); err != nil {
			t.Error(err)
		}
		if err := s.Remove("a", "nar/a", "nar/none", "../a", "b"); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%v, want fs.ErrInvalid for one of them", err)
		}
		for _, name := range []string{"a", "b", "nar/a"} {
			MustMiss(t, s, name)
		}
		MustHold(t, s, "nar/b", "x")
	})

	t.Run("ReadFile refuses what is too large", func(t *testing.T) {
		s := open(t)
		Put(t, s, "a", "12345")
		if text, err := blob.ReadFile(s, "a", 4); err == nil {
			t.Errorf("got %q", text)
		}
	})

	t.Run("many at once", func(t *testing.T) {
		s := open(t)
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := range 50 {
					text := bytes.Repeat([]byte{byte('a' + g)}, 3000)
					if err := blob.WriteFile(s, fmt.Sprintf("nar/%d", i%5), text); err != nil {
						t.Error(err)
						return
					}
					got, err := blob.ReadFile(s, fmt.Sprintf("nar/%d", (i+g)%5), 1<<20)
					if errors.Is(err, fs.ErrNotExist) {
						continue
					}
					if err != nil || len(got) != 3000 || !bytes.Equal(got, bytes.Repeat(got[:1], 3000)) {
						t.Errorf("read %d bytes, %v: not one whole file", len(got), err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// Put stores a file.
func Put(t *testing.T, s blob.Store, name, text string) {
	t.Helper()
	if err := blob.WriteFile(s, name, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// MustWrite writes to a file that is being written.
func MustWrite(t *testing.T, w blob.Writer, text string) {
	t.Helper()
	if n, err := w.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatalf("Write: %d, %v", n, err)
	}
}

// MustHold tells if a file is not what it should be.
func MustHold(t *testing.T, s blob.Store, name, want string) {
	t.Helper()
	got, err := blob.ReadFile(s, name, 1<<20)
	if err != nil || string(got) != want {
		t.Errorf("%s holds %q, %v; want %q", name, got, err, want)
	}
}

// MustMiss tells if there is a file.
func MustMiss(t *testing.T, s blob.Store, name string) {
	t.Helper()
	if f, err := s.Open(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open(%s): %v, %v; want fs.ErrNotExist", name, f, err)
	}
	if _, err := s.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat(%s): %v; want fs.ErrNotExist", name, err)
	}
}

// List are the names of the files directly in dir, sorted.
func List(t *testing.T, s blob.Store, dir string) (names []string) {
	t.Helper()
	err := s.List(dir, func(i blob.Info) error {
		names = append(names, i.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}
