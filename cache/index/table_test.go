package index

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
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
	b, err := Open(s, Options{})
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
	if err := Put(b, record(1, 1, []int{1}, nil)); err != nil {
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
	_, err := Open(db, Options{})
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

// What an older narwharf filled, and did not come to use, when it was killed in a
// rebuild goes; the generation that it used is used.
func TestTableGenerations(t *testing.T) {
	for _, used := range []generation{"1", "2"} {
		db, reopen := openState(t)
		write(t, db, metaBucket, keyGen, string(used))
		m := model{hashOf(1): record(1, 9, []int{1}, nil)}
		if err := Put(open(t, db), m[hashOf(1)]); err != nil {
			t.Fatal(err)
		}
		other := map[generation]generation{"1": "2", "2": "1"}[used]
		write(t, db, other.path(), hashOf(5), "left")
		write(t, db, other.nar(), "x", "left")
		db = reopen()
		b := open(t, db)
		mustEqual(t, b, m)
		err := db.View(t.Context(), func(tx state.Reader) error {
			for _, bucket := range []string{other.path(), other.nar()} {
				if list, err := tx.List(bucket, state.Range{}); err != nil || len(list) > 0 {
					t.Errorf("%s has %v, %v", bucket, list, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
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
				if err := Put(b, r); err != nil {
					t.Fatal(err)
				}
			}
			write(t, db, generation("1").path(), hashOf(2), value)
			// The message names rebuild, so it must be possible to get there.
			b = open(t, reopen())
			_, get := b.Get(hashOf(2))
			each := b.Each(func(_ string, _ *Record, err error) error { return err })
			put := Put(b, record(2, 5, []int{2}, nil))
			remove := Delete(b, hashOf(2))
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
			again := record(2, 7, []int{3}, nil)
			err := b.Change([]string{PathLock(hashOf(2))}, func(tx *Tx) error { return errors.Join(tx.Drop(hashOf(2)), tx.Put(again)) })
			if err := errors.Join(err, b.Prune()); err != nil {
				t.Fatal(err)
			}
			mustEqual(t, b, model{hashOf(1): good, hashOf(2): again})
			mustEqual(t, open(t, reopen()), model{hashOf(1): good, hashOf(2): again})
		})
	}
}

func TestTableAfterDatabaseIsClosed(t *testing.T) {
	db, _ := openState(t)
	b := open(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, get := b.Get(hashOf(1))
	for op, err := range map[string]error{"Put": Put(b, record(1, 1, []int{1}, nil)), "Delete": Delete(b, hashOf(1)), "Get": get, "Close": b.Close(Files{})} {
		if err == nil {
			t.Errorf("%s on a closed database passed", op)
		}
	}
}
