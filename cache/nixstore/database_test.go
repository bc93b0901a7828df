package nixstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestLocked(t *testing.T) {
	f := newFixture(t, "/nix/store")
	i := pathInfo("/nix/store", "x")
	i.References = nil
	f.put(i)
	s := f.open()
	s.timeout, s.db.Load().timeout = 400*time.Millisecond, 400*time.Millisecond
	// Close the writer: only one who is alone gets a lock that shuts readers out.
	if err := f.w.Close(); err != nil {
		t.Fatal(err)
	}
	s.drop(s.db.Load())
	f.connect("wal")
	f.exec("pragma locking_mode = exclusive")
	f.exec("begin exclusive")
	f.exec("delete from Refs")

	start := time.Now()
	_, err := s.Info(context.Background(), i.Path)
	if took := time.Since(start); !errors.Is(err, ErrLocked) || took < 400*time.Millisecond || took > 5*time.Second {
		t.Errorf("after %s: %v", took, err)
	}
	if _, err := Open(Options{StateDir: f.state, Timeout: time.Millisecond}); !errors.Is(err, ErrLocked) {
		t.Errorf("open: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	s.timeout = time.Minute
	if _, err := s.Info(ctx, i.Path); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}

	// Who waits gets an answer when the lock goes.
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if got, err := s.Info(context.Background(), i.Path); err != nil || got.NarHash != i.NarHash {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	f.exec("rollback")
	f.exec("pragma locking_mode = normal")
	f.exec("select 1 from ValidPaths") // gives the lock back
	wg.Wait()
}

// TestReplaced puts another database in place of the one that is open, as who
// restores a backup does.
func TestReplaced(t *testing.T) {
	f := newFixture(t, "/nix/store")
	old := pathInfo("/nix/store", "old")
	f.put(old)
	s := f.open()
	same(t, mustInfo(t, s, old.Path), old)
	for n := range 5 {
		before, err := s.Version(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		other := newFixtureIn(t, "/nix/store", shortDir(t))
		i := pathInfo("/nix/store", fmt.Sprint("new-", n))
		other.put(i)
		other.leaveWAL()
		for _, file := range []string{"-wal", "-shm", ""} {
			if err := os.Rename(databaseIn(other.state)+file, databaseIn(f.state)+file); err != nil {
				t.Fatal(err)
			}
		}
		same(t, mustInfo(t, s, i.Path), i)
		if _, err := s.Info(context.Background(), old.Path); !errors.Is(err, ErrNotValid) {
			t.Error(err)
		}
		if after, err := s.Version(context.Background()); err != nil || after == before {
			t.Errorf("version %v, before %v, %v", after, before, err)
		}
		old = i
	}
	if n := openFiles(t); n > 20 {
		t.Errorf("%d files of databases are open", n)
	}
}

func TestDeleted(t *testing.T) {
	f := newFixture(t, "/nix/store")
	i := pathInfo("/nix/store", "x")
	f.put(i)
	f.leaveWAL()
	s := f.open()
	same(t, mustInfo(t, s, i.Path), i)
	away := shortDir(t) + "/db"
	if err := os.Rename(f.state+"/db", away); err != nil {
		t.Fatal(err)
	}
	_, err := s.Info(context.Background(), i.Path)
	if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotValid) ||
		!strings.Contains(err.Error(), "the database "+databaseIn(f.state)+" is not there") {
		t.Error(err)
	}
	if _, err := s.Closure(context.Background(), i.Path); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	if _, err := s.Version(context.Background()); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	if err := os.Rename(away, f.state+"/db"); err != nil {
		t.Fatal(err)
	}
	same(t, mustInfo(t, s, i.Path), i)
}

func TestSchema(t *testing.T) {
	for _, c := range []struct{ schema, want string }{
		{"11", `has schema "11"; only 10 is known here; `},
		{"9\n", `has schema "9"; only 10 is known here; `},
		{"", `has schema ""; only 10 is known here; `},
		{"what is this, a very long text", `has schema "what is this, a very"; only 10`},
	} {
		f := newFixture(t, "/nix/store")
		i := pathInfo("/nix/store", "x")
		f.put(i)
		s := f.open()
		same(t, mustInfo(t, s, i.Path), i)
		// Nix upgrades in place, and writes the number last.
		if err := os.WriteFile(f.state+"/db/schema", []byte(c.schema), 0o644); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := s.Info(context.Background(), i.Path); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), c.want) {
				t.Error(err)
			}
		}
		if err := os.WriteFile(f.state+"/db/schema", []byte("10\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		same(t, mustInfo(t, s, i.Path), i)
	}
}

func TestNotADatabaseOfNix(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(f *fixture)
		want string
	}{
		{"no table", func(f *fixture) { f.exec("drop table Refs") }, "is not one that Nix made: "},
		{"no column", func(f *fixture) { f.exec("alter table ValidPaths drop column ca") }, "is not one that Nix made: "},
		{"no schema file", func(f *fixture) {
			if err := os.Remove(f.state + "/db/schema"); err != nil {
				t.Fatal(err)
			}
		}, "/db/schema, which says how to read the database, is not there; "},
		{"not a database", func(f *fixture) {
			f.leaveWAL()
			if err := os.WriteFile(databaseIn(f.state), []byte(strings.Repeat("no database ", 1000)), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "is damaged: "},
		{"not in WAL mode", func(f *fixture) {
			f.leaveWAL()
			f.connect("truncate")
			f.exec("delete from Refs")
			if err := f.w.Close(); err != nil {
				t.Fatal(err)
			}
			for _, side := range []string{"-wal", "-shm"} {
				if err := os.WriteFile(databaseIn(f.state)+side, nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}, "is in journal mode "},
	} {
		f := newFixture(t, "/nix/store")
		f.put(pathInfo("/nix/store", "x"))
		c.make(f)
		s, err := Open(f.options())
		if err == nil {
			_ = s.Close()
			t.Errorf("%s: opened", c.name)
		} else if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestDamaged overwrites pages of a database that is open: a question ends in
// an error or in the right answer, never in "not valid".
func TestDamaged(t *testing.T) {
	f := newFixture(t, "/nix/store")
	infos := pathInfos("/nix/store", 3000, 3)
	f.put(infos...)
	f.leaveWAL()
	s := f.open()
	// Not in this process, whose locks on the file would go.
	r := startReader(t, os.Getuid(), f.options())
	if a := r.ask("open"); a.Error != "" {
		t.Fatal(a.Error)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(databaseIn(f.state), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	for page := int64(3); page < info.Size()/4096; page++ {
		if page%2 == 0 {
			if _, err := file.WriteAt(make([]byte, 4096), page*4096); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	failed := 0
	for _, i := range infos[:200] {
		switch a := r.ask("info " + string(i.Path)); {
		case a.Error == "" && a.Fingerprint == string(i.AppendFingerprint(nil)):
		case strings.Contains(a.Error, "is damaged"):
			failed++
		default:
			t.Fatalf("%s: %+v", i.Path, a)
		}
	}
	if failed == 0 {
		t.Error("no damage was met")
	}
}
