package access

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/memory"
	"narwharf/cache/state/mirror"
)

// A database that is lost, or comes back from a backup, forgets no token and no
// revocation.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "tokens")
	db := openDB(t, filepath.Join(dir, "db"))
	s := mustOpen(t, db)
	ci := newToken(t, "ci", noon, time.Time{}, "push")
	mustAdd(t, s, ci) // before there is a file
	s, n, err := Open(t.Context(), db, file)
	if err != nil || n != 0 {
		t.Fatalf("Open = %d, %v", n, err)
	}
	join := newJoin(t, "rack-7", "", 2)
	mustAdd(t, s, join)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	backup, err := os.ReadFile(filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	if s, n, err = Open(t.Context(), openDB(t, filepath.Join(dir, "db")), file); err != nil || n != 0 {
		t.Fatalf("Open again = %d, %v", n, err)
	}
	host := newHost(t, "web-1", noon)
	if err := s.Redeem(t.Context(), join.ID, one, host); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Revoke(t.Context(), "ci", noon.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	want, err := s.List(t.Context())
	if err != nil || len(want) != 3 {
		t.Fatalf("List = %v, %v", want, err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode() != fs.FileMode(0o600) {
		t.Errorf("the file has mode %v, %v", st.Mode(), err)
	}

	for _, c := range []struct {
		name     string
		database []byte
		restored int
	}{
		{"a new database", nil, 3},
		{"one of before", backup, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "db")
			if c.database != nil {
				if err := os.WriteFile(path, c.database, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			db := openDB(t, path)
			s, n, err := Open(t.Context(), db, file)
			if err != nil || n != c.restored {
				t.Fatalf("Open = %d, %v", n, err)
			}
			for pass := range 2 { // what is in memory, then what is in the database
				got, err := s.List(t.Context())
				if err != nil || !sameTokens(t, got, want) {
					t.Errorf("pass %d: %+v, %v\nwant %+v", pass, got, err, want)
				}
				s = mustOpen(t, db)
			}
		})
	}
}

func sameTokens(t *testing.T, a, b []Token) bool {
	t.Helper()
	text := func(tokens []Token) string {
		var out strings.Builder
		for _, token := range tokens {
			value, err := encodeToken(token)
			if err != nil {
				t.Fatal(err)
			}
			out.WriteString(token.ID + " " + string(value) + "\n")
		}
		return out.String()
	}
	return text(a) == text(b)
}

// What cannot be kept is not done.
func TestKeepFailedWrite(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "here")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	db := openDB(t, filepath.Join(t.TempDir(), "db"))
	s, _, err := Open(t.Context(), db, filepath.Join(folder, "tokens"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(t.Context(), newToken(t, "ci", noon, time.Time{}, "push")); err == nil {
		t.Error("Add with no folder for the file: no error")
	}
	for _, s := range []*Tokens{s, mustOpen(t, db)} {
		if all, err := s.List(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("List = %v, %v", all, err)
		}
	}
	if _, _, err := Open(t.Context(), db, filepath.Join(folder, "tokens")); err != nil {
		t.Errorf("Open with nothing to write: %v", err) // or no server could start on a full disk
	}
	db = openDB(t, filepath.Join(t.TempDir(), "other"))
	mustAdd(t, mustOpen(t, db), newToken(t, "ci", noon, time.Time{}, "push"))
	if _, _, err := Open(t.Context(), db, filepath.Join(folder, "tokens")); err == nil {
		t.Error("Open with no folder: no error")
	}
}

// On a full disk a token can be revoked, and stays revoked.
func TestKeepRevokesWithoutRoom(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "here")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "tokens")
	db := openDB(t, filepath.Join(t.TempDir(), "db"))
	mustAdd(t, mustOpen(t, db), newToken(t, "ci", noon, time.Time{}, "push"))
	s, _, err := Open(t.Context(), db, file)
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Revoke(t.Context(), "ci", noon.Add(time.Hour)); err != nil {
		t.Errorf("Revoke: %v", err)
	}
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, old, 0o600); err != nil { // where it is active
		t.Fatal(err)
	}
	if s, _, err = Open(t.Context(), db, file); err != nil {
		t.Fatal(err)
	}
	if kept, err := os.ReadFile(file); err != nil || bytes.Count(kept, []byte("\n")) != 1 || !bytes.Contains(kept, []byte(`"revoked"`)) {
		t.Errorf("the file has %s, %v", kept, err)
	}
	if all, err := s.List(t.Context()); err != nil || len(all) != 1 || all[0].Revoked.IsZero() {
		t.Errorf("List = %+v, %v", all, err)
	}
}

// A file that is not understood may hold revocations: it is left for people.
func TestKeepDamagedFile(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":       "tokens\n",
		"cut":           `{"id":"0123456789","tok`,
		"newer version": `{"id":"0123456789","token":{"v":9}}` + "\n",
		"empty line":    "\n",
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "tokens")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := Open(t.Context(), memory.New(nil), file); err == nil || !strings.Contains(err.Error(), file+", line 1") || !strings.Contains(err.Error(), "move it away") {
				t.Errorf("Open: %v", err)
			}
			if is, err := os.ReadFile(file); err != nil || string(is) != text {
				t.Errorf("the file is now %q, %v", is, err)
			}
		})
	}
}

// A change adds its tokens to the file, and no others: it does not grow with each, and
// is replaced when it has grown.
func TestKeepGrows(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "tokens")
	db := openDB(t, filepath.Join(dir, "db"))
	s, _, err := Open(t.Context(), db, file)
	if err != nil {
		t.Fatal(err)
	}
	lines := func() int {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(text, []byte("\n"))
	}
	mustAdd(t, s, newToken(t, "ci", noon, time.Time{}, "push")) // makes it
	mustAdd(t, s, newToken(t, "web", noon, time.Time{}, "push"))
	if _, err := s.Revoke(t.Context(), "ci", noon); err != nil {
		t.Fatal(err)
	}
	if n := lines(); n != 3 {
		t.Errorf("the file has %d lines after three changes", n)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	again, n, err := Open(t.Context(), db, file)
	if err != nil || n != 0 {
		t.Fatalf("Open = %d, %v", n, err)
	}
	if is, err := os.ReadFile(file); err != nil || !bytes.Equal(is, before) {
		t.Errorf("what agrees was written anew: %v", err)
	}
	again.copy.room = 10
	mustAdd(t, again, newToken(t, "db", noon, time.Time{}, "push"))
	if n := lines(); n != 3 {
		t.Errorf("the file has %d lines for three tokens, and was to be replaced", n)
	}
}

// A power cut leaves a part of a line, of a change that was never committed; and a
// change that failed at its end leaves lines, which the next takes away.
func TestKeepAfterAFault(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "tokens")
	db := openDB(t, filepath.Join(dir, "db"))
	s, _, err := Open(t.Context(), db, file)
	if err != nil {
		t.Fatal(err)
	}
	mustAdd(t, s, newToken(t, "ci", noon, time.Time{}, "push"))
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(whole, whole[:40]...), 0o600); err != nil {
		t.Fatal(err)
	}
	s, n, err := Open(t.Context(), db, file)
	if err != nil || n != 0 {
		t.Fatalf("Open = %d, %v", n, err)
	}
	if is, err := os.ReadFile(file); err != nil || !bytes.Equal(is, whole) {
		t.Errorf("the file is %q, %v", is, err)
	}

	boom := errors.New("boom")
	s.set = mirror.NewSet(failing{db, boom}, nil)
	if err := s.Add(t.Context(), newToken(t, "ghost", noon, time.Time{}, "push")); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	s.set = mirror.NewSet(db, nil)
	mustAdd(t, s, newToken(t, "web", noon, time.Time{}, "push"))
	if is, err := os.ReadFile(file); err != nil || bytes.Contains(is, []byte("ghost")) || !bytes.Contains(is, []byte("web")) {
		t.Errorf("the file is %q, %v", is, err)
	}
}

// failing is a state whose transactions fail at their end.
type failing struct {
	state.Store
	err error
}

func (f failing) Update(ctx context.Context, locks []string, fn func(tx state.Tx) error) error {
	return f.Store.Update(ctx, locks, func(tx state.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return f.err
	})
}
