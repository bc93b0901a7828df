package index

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/bbolt"
)

// openDB opens a database in memory, where there is such a folder. reopen
// closes it and opens the same file.
func openDB(t *testing.T) (db *bbolt.DB, reopen func() *bbolt.DB) {
	dir, err := os.MkdirTemp("/dev/shm", "narwharf-test-")
	if err != nil {
		dir = t.TempDir()
	}
	file := filepath.Join(dir, "test.db")
	open := func() *bbolt.DB {
		t.Helper()
		d, err := bbolt.Open(file, 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		db = d
		return d
	}
	t.Cleanup(func() { _ = db.Close(); _ = os.RemoveAll(dir) })
	return open(), func() *bbolt.DB {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		return open()
	}
}

func newBolt(t *testing.T, db *bbolt.DB) *Bolt {
	t.Helper()
	b, err := NewBolt(db)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBoltContract(t *testing.T) {
	testContract(t, func(t *testing.T) (Index, func() Index) {
		db, reopen := openDB(t)
		return newBolt(t, db), func() Index { return newBolt(t, reopen()) }
	})
}

func TestBoltDirty(t *testing.T) {
	db, reopen := openDB(t)
	b := newBolt(t, db)
	if !b.Dirty() {
		t.Error("a new index may stand over old files: it must be dirty")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = newBolt(t, reopen())
	if b.Dirty() {
		t.Error("dirty after Close")
	}
	if err := b.Put(record(1, 1, []int{1}, nil)); err != nil {
		t.Fatal(err)
	}
	if b = newBolt(t, reopen()); !b.Dirty() { // without Close: killed
		t.Error("not dirty after a kill")
	}
	if b = newBolt(t, reopen()); !b.Dirty() { // and stays so, as nobody made it agree
		t.Error("not dirty after two kills")
	}
}

func TestBoltNewerVersion(t *testing.T) {
	db, _ := openDB(t)
	newBolt(t, db)
	inMeta(t, db, func(meta *bbolt.Bucket) error { return meta.Put(keyVersion, []byte("2")) })
	_, err := NewBolt(db)
	if err == nil || !strings.Contains(err.Error(), "version 2") || !strings.Contains(err.Error(), "newer narwharf") {
		t.Errorf("a newer version: %v", err)
	}
	inMeta(t, db, func(meta *bbolt.Bucket) error {
		if meta.Get(keyVersion) == nil || string(meta.Get(keyVersion)) != "2" {
			t.Error("the refused database was changed")
		}
		return nil
	})
}

func inMeta(t *testing.T, db *bbolt.DB, fn func(meta *bbolt.Bucket) error) {
	t.Helper()
	if err := db.Update(func(tx *bbolt.Tx) error { return fn(tx.Bucket(rootBucket).Bucket(metaBucket)) }); err != nil {
		t.Fatal(err)
	}
}

// A Replace that a crash cut short leaves a half-filled generation: it goes
// when the index is opened, and what was in use stays.
func TestBoltStaleGeneration(t *testing.T) {
	db, reopen := openDB(t)
	b := newBolt(t, db)
	m := model{hashOf(1): record(1, 9, []int{1}, nil)}
	if err := b.Put(m[hashOf(1)]); err != nil {
		t.Fatal(err)
	}
	killed := errors.New("killed")
	err := b.Replace(func(put func(*Record) error) error {
		for n := range replaceBatch + 1 { // so that one batch is written
			if err := put(record(n, 1, []int{n}, nil)); err != nil {
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
	b = newBolt(t, db)
	if got := generations(t, db); got != 1 {
		t.Errorf("%d generations after opening, want 1", got)
	}
	mustEqual(t, b, m)
	// A larger Replace, over several transactions, that ends.
	next := model{}
	err = b.Replace(func(put func(*Record) error) error {
		for n := range 2*replaceBatch + 1 {
			r := record(n, 1, []int{n}, []int{n + 1})
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

func generations(t *testing.T, db *bbolt.DB) (n int) {
	t.Helper()
	err := db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(rootBucket).ForEachBucket(func(k []byte) error {
			if string(k) != string(metaBucket) {
				n++
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestBoltDamagedRecord(t *testing.T) {
	for name, value := range map[string]string{
		"no line":     "xxxx",
		"no JSON":     "{\nStorePath: /nix/store/x\n",
		"no narinfo":  "{}\nStorePath: nonsense\n",
		"empty":       "",
		"other JSON":  "[]\nx",
		"cut narinfo": "{}\nStorePath: /nix/store/" + string(pathOf(2)) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			db, reopen := openDB(t)
			b := newBolt(t, db)
			good := record(1, 9, []int{1}, nil)
			for _, r := range []*Record{good, record(2, 5, []int{2}, nil)} {
				if err := b.Put(r); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			err := db.Update(func(tx *bbolt.Tx) error {
				return generation(tx.Bucket(rootBucket)).Bucket(pathBucket).Put([]byte(hashOf(2)), []byte(value))
			})
			if err != nil {
				t.Fatal(err)
			}
			// The message names rebuild, so it must be possible to get there.
			b = newBolt(t, reopen())
			if !b.Dirty() {
				t.Error("a damaged index is not dirty")
			}
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

// One change that fails is refused alone, though it shares its transaction
// with others; its half-done work is undone, in the totals too.
func TestBoltGroupCommit(t *testing.T) {
	db, _ := openDB(t)
	b := newBolt(t, db)
	// Hold the writer up, so that all the changes below are in one batch.
	hold := make(chan struct{})
	started := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		err := b.change(func(*bbolt.Bucket, *Totals) error {
			close(started)
			<-hold
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-started
	const n = 40
	before := stats(db)
	bad := errors.New("bad")
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			if i%10 != 3 {
				errs[i] = b.Put(record(i, 1, []int{i % 8}, nil))
				return
			}
			errs[i] = b.change(func(root *bbolt.Bucket, t *Totals) error {
				if err := put(generation(root), t, record(1000+i, 77, []int{i}, nil)); err != nil {
					return err
				}
				return fmt.Errorf("change %d: %w", i, bad)
			})
		})
	}
	for { // until all wait
		b.mu.Lock()
		waiting := len(b.queue)
		b.mu.Unlock()
		if waiting == n {
			break
		}
	}
	close(hold)
	wg.Wait()
	m := model{}
	for i, err := range errs {
		if i%10 == 3 {
			if !errors.Is(err, bad) || !strings.Contains(err.Error(), fmt.Sprintf("change %d:", i)) {
				t.Errorf("change %d, which fails: %v", i, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("change %d, which does not: %v", i, err)
		}
		m[hashOf(i)] = record(i, 1, []int{i % 8}, nil)
	}
	mustEqual(t, b, m)
	// 4 that fail and 1 that ends: not a transaction for each of the 40.
	if got := stats(db) - before; got > 6 {
		t.Errorf("%d transactions for %d changes", got, n)
	}
}

func stats(db *bbolt.DB) (transactions int) {
	err := db.View(func(tx *bbolt.Tx) error {
		transactions = tx.ID()
		return nil
	})
	if err != nil {
		panic(err)
	}
	return transactions
}

// A Put that comes while Replace turns the generations must not crash, nor
// leave numbers that nothing stands behind.
func TestBoltPutDuringReplace(t *testing.T) {
	db, reopen := openDB(t)
	b := newBolt(t, db)
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
	if got, _ := newBolt(t, reopen()).Totals(); got != was {
		t.Errorf("Totals were %+v and are %+v when counted anew", was, got)
	}
}

func TestBoltAfterDatabaseIsClosed(t *testing.T) {
	db, _ := openDB(t)
	b := newBolt(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, get := b.Get(hashOf(1))
	for op, err := range map[string]error{"Put": b.Put(record(1, 1, []int{1}, nil)), "Delete": b.Delete(hashOf(1)), "Get": get, "Close": b.Close()} {
		if err == nil {
			t.Errorf("%s on a closed database passed", op)
		}
	}
}
