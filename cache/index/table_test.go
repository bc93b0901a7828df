package index

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"narwharf/cache/state"
	"narwharf/cache/state/bolt"
	"narwharf/cache/state/memory"
	"narwharf/cache/state/statetest"
)

// openState opens a state in memory, where there is such a folder. reopen closes
// it and opens the same file.
func openState(t *testing.T) (s *bolt.Store, reopen func() *bolt.Store) {
	dir, err := os.MkdirTemp("/dev/shm", "narwharf-test-")
	if err != nil {
		dir = t.TempDir()
	}
	file := filepath.Join(dir, "test.db")
	open := func() *bolt.Store {
		t.Helper()
		var err error
		if s, err = bolt.Open(file, bolt.Options{NoSync: true}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	t.Cleanup(func() { _ = s.Close(); _ = os.RemoveAll(dir) })
	return open(), func() *bolt.Store {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return open()
	}
}

func open(t *testing.T, s state.Store) *Table {
	t.Helper()
	b, err := Open(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// write changes the state behind the index's back.
func write(t *testing.T, s state.Store, bucket, key, value string) {
	t.Helper()
	err := s.Update(t.Context(), nil, func(tx state.Tx) error { return tx.Put(bucket, key, []byte(value)) })
	if err != nil {
		t.Fatal(err)
	}
}

func TestTableContract(t *testing.T) {
	t.Run("bolt", func(t *testing.T) {
		testContract(t, func(t *testing.T) (Index, func() Index) {
			db, reopen := openState(t)
			return open(t, db), func() Index { return open(t, reopen()) }
		})
	})
	t.Run("each change twice", func(t *testing.T) {
		testContract(t, func(t *testing.T) (Index, func() Index) {
			db := statetest.Twice(memory.New(nil))
			return open(t, db), func() Index { return open(t, db) }
		})
	})
}

func TestTableDirty(t *testing.T) {
	db, reopen := openState(t)
	b := open(t, db)
	if !b.Dirty() {
		t.Error("a new index may stand over old files: it must be dirty")
	}
	if err := b.Close(Files{}); err != nil {
		t.Fatal(err)
	}
	b = open(t, reopen())
	if b.Dirty() {
		t.Error("dirty after Close")
	}
	if err := b.Put(record(1, 1, []int{1}, nil)); err != nil {
		t.Fatal(err)
	}
	if b = open(t, reopen()); !b.Dirty() { // without Close: killed
		t.Error("not dirty after a kill")
	}
	if b = open(t, reopen()); !b.Dirty() { // and stays so, as nobody made it agree
		t.Error("not dirty after two kills")
	}
}

func TestTableNewerVersion(t *testing.T) {
	db, _ := openState(t)
	open(t, db)
	write(t, db, metaBucket, keyVersion, "2")
	_, err := Open(db)
	if err == nil || !strings.Contains(err.Error(), "version 2") || !strings.Contains(err.Error(), "newer narwharf") {
		t.Errorf("a newer version: %v", err)
	}
	err = db.View(t.Context(), func(tx state.Reader) error {
		v, err := tx.Get(metaBucket, keyVersion)
		if string(v) != "2" {
			t.Error("the refused database was changed")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A Replace that a crash cut short leaves a half-filled generation: it goes
// when the index is opened, and what was in use stays.
func TestTableStaleGeneration(t *testing.T) {
	db, reopen := openState(t)
	b := open(t, db)
	m := model{hashOf(1): record(1, 9, []int{1}, nil)}
	if err := b.Put(m[hashOf(1)]); err != nil {
		t.Fatal(err)
	}
	killed := errors.New("killed")
	err := b.Replace(func(put func(*Record) error) error {
		for n := range 200 { // some 13 MB, so that one batch is written
			if err := put(large(record(n, 1, []int{n}, nil))); err != nil {
				return err
			}
		}
		return killed
	})
	if !errors.Is(err, killed) {
		t.Fatal(err)
	}
	if got := generations(t, db); got != 2 {
		t.Errorf("%d generations after a cut Replace, want 2", got)
	}
	db = reopen()
	b = open(t, db)
	if got := generations(t, db); got != 1 {
		t.Errorf("%d generations after opening, want 1", got)
	}
	mustEqual(t, b, m)
	// A larger Replace, over several transactions, that ends.
	next := model{}
	err = b.Replace(func(put func(*Record) error) error {
		for n := range 400 {
			r := large(record(n, 1, []int{n}, []int{n + 1}))
			next[hashOf(n)] = r
			if err := put(r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, b, next)
	if got := generations(t, db); got != 1 {
		t.Errorf("%d generations after Replace, want 1", got)
	}
}

func large(r *Record) *Record {
	r.By = strings.Repeat("x", 1<<16)
	return r
}

func generations(t *testing.T, db state.Store) (n int) {
	t.Helper()
	err := db.View(t.Context(), func(tx state.Reader) error {
		for _, g := range []generation{"1", "2"} {
			list, err := tx.List(g.path(), state.Range{Limit: 1})
			if err != nil {
				return err
			}
			n += len(list)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTableDamagedRecord(t *testing.T) {
	for name, value := range map[string]string{
		"no line":     "xxxx",
		"no JSON":     "{\nStorePath: /nix/store/x\n",
		"no narinfo":  "{}\nStorePath: nonsense\n",
		"empty":       "",
		"other JSON":  "[]\nx",
		"cut narinfo": "{}\nStorePath: /nix/store/" + string(pathOf(2)) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			db, reopen := openState(t)
			b := open(t, db)
			good := record(1, 9, []int{1}, nil)
			for _, r := range []*Record{good, record(2, 5, []int{2}, nil)} {
				if err := b.Put(r); err != nil {
					t.Fatal(err)
				}
			}
			write(t, db, generation("1").path(), hashOf(2), value)
			// The message names rebuild, so it must be possible to get there.
			b = open(t, reopen())
			_, get := b.Get(hashOf(2))
			each := b.Each(func(*Record) error { return nil })
			put := b.Put(record(2, 5, []int{2}, nil))
			remove := b.Delete(hashOf(2))
			for op, err := range map[string]error{"Get": get, "Each": each, "Put": put, "Delete": remove} {
				if err == nil || !strings.Contains(err.Error(), "narwharf rebuild") || !strings.Contains(err.Error(), hashOf(2)) {
					t.Errorf("%s: %v, want an error that names the record and narwharf rebuild", op, err)
				}
			}
			if got, err := b.Get(hashOf(1)); err != nil || text(got) != text(good) {
				t.Errorf("the other record: %v, %v", got, err)
			}
			if got, _ := b.Totals(); got != (Totals{1, 9}) {
				t.Errorf("Totals %+v, want those of what can be read", got)
			}
			if err := b.Replace(func(put func(*Record) error) error { return put(good) }); err != nil {
				t.Fatal(err)
			}
			mustEqual(t, b, model{hashOf(1): good})
		})
	}
}

// A Put that comes while Replace turns the generations must not crash, nor
// leave numbers that nothing stands behind.
func TestTablePutDuringReplace(t *testing.T) {
	db, reopen := openState(t)
	b := open(t, db)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := b.Put(record(i%50, 3, []int{i % 8}, nil)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 30 {
		err := b.Replace(func(put func(*Record) error) error {
			for n := range 20 {
				if err := put(record(n, 2, []int{n}, nil)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	was, err := b.Totals()
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := open(t, reopen()).Totals(); got != was {
		t.Errorf("Totals were %+v and are %+v when counted anew", was, got)
	}
}

func TestTableAfterDatabaseIsClosed(t *testing.T) {
	db, _ := openState(t)
	b := open(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, get := b.Get(hashOf(1))
	for op, err := range map[string]error{"Put": b.Put(record(1, 1, []int{1}, nil)), "Delete": b.Delete(hashOf(1)), "Get": get, "Close": b.Close(Files{})} {
		if err == nil {
			t.Errorf("%s on a closed database passed", op)
		}
	}
}
