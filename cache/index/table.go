package index

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"narwharf/cache/state"
)

// Buckets and keys of the state. The tables are in the bucket that "index/meta"
// names under "generation": "1", or "2" where an older narwharf has rebuilt the index.
//
//	index/1/path  <hash>              -> one line of JSON (recordHead), "\n", the narinfo
//	index/1/nar   <file> NUL <hash>   -> ""
//	index/1/ref   <hash> <referrer>   -> ""
//
// meta's key "clean" is there while nobody has the index open for writing. Its
// value is what was counted then (cleanNote), or begins with "1".
const (
	rootBucket = "index"
	metaBucket = rootBucket + "/meta"
	keyGen     = "generation"
	keyClean   = "clean"
	keyVersion = "version"
	version    = "1"
)

// lockMeta is the lock of what is in metaBucket.
const lockMeta = "index"

// Table is an Index in a state.
type Table struct {
	state  state.Store
	g      generation
	lease  time.Duration
	shared bool
	dirty  bool
	closed time.Time
	files  *Files // as the last Close in order has it, nil if that is not known

	asked *lru.Cache[string, time.Time] // NAR files of which AskedLately was true, and when

	turn  sync.RWMutex // held for reading by changes, for writing by who counts
	mu    sync.Mutex   // guards count
	count count
}

var _ Index = (*Table)(nil)

// generation is one of the two places for the tables.
type generation string

func (g generation) root() string { return rootBucket + "/" + string(g) }
func (g generation) path() string { return g.root() + "/path" }
func (g generation) nar() string  { return g.root() + "/nar" }
func (g generation) ref() string  { return g.root() + "/ref" }

// Options are how long paths stay.
type Options struct {
	// Lease is how long a path stays for certain after its last use; 0 is a day.
	Lease time.Duration
	// Shared is that other servers may have the state: see shared.go.
	Shared bool
}

// Open opens the index in s, which others share. A state written by a newer
// version is refused. Damaged records are not: Get and Each say which and what
// to do, and Replace mends them.
func Open(s state.Store, o Options) (*Table, error) {
	t := &Table{state: s, lease: cmp.Or(o.Lease, 24*time.Hour), shared: o.Shared}
	t.asked, _ = lru.New[string, time.Time](1 << 14) // it fails for less than one
	err := s.Update(context.Background(), []string{lockMeta}, func(tx state.Tx) error {
		v, err := tx.Get(metaBucket, keyVersion)
		switch {
		case err != nil:
			return err
		case v == nil:
			if err := tx.Put(metaBucket, keyVersion, []byte(version)); err != nil {
				return err
			}
		case string(v) != version:
			return fmt.Errorf("the index in %s has version %s and this narwharf knows version %s: use the newer narwharf, or move the file away and run narwharf rebuild", s, v, version)
		}
		g, err := tx.Get(metaBucket, keyGen)
		if t.g = generation(g); t.g == "" && err == nil {
			t.g = "1"
			err = tx.Put(metaBucket, keyGen, []byte(t.g))
		}
		if err != nil {
			return err
		}
		if t.shared {
			return t.openShared(tx)
		}
		// A new index may stand over files that are old: it is not clean either.
		clean, err := tx.Get(metaBucket, keyClean)
		if err != nil {
			return err
		}
		t.dirty = clean == nil
		t.recall(clean)
		err = tx.Delete(metaBucket, keyClean)
		if err == nil {
			err = t.sinceOpened(tx, clean)
		}
		if err != nil {
			return err
		}
		// An older narwharf that was killed in a rebuild leaves half of another.
		return tx.Clear(map[generation]generation{"1": "2", "2": "1"}[t.g].root())
	})
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	return t, nil
}

// Dirty tells whether the index was not closed in order the last time, or is
// new: files may be there that it does not know, and the reverse.
func (t *Table) Dirty() bool { return t.dirty }

// Close notes that the index and the files agree, and how many files there are. It
// does not close the state, which others share. Do not call it after a failed
// recovery.
func (t *Table) Close(files Files) error {
	if t.shared {
		return nil
	}
	note := t.note(files)
	return t.state.Update(context.Background(), []string{lockMeta}, func(tx state.Tx) error {
		return tx.Put(metaBucket, keyClean, note)
	})
}

// Change implements Index.
func (t *Table) Change(locks []string, fn func(tx *Tx) error) error {
	t.turn.RLock()
	defer t.turn.RUnlock()
	var x *Tx
	err := t.state.Update(context.Background(), locks, func(tx state.Tx) error {
		x = t.tx(tx)
		return fn(x)
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case errors.Is(err, state.ErrUncertain):
		t.count = count{} // anew, when somebody asks
	case err == nil:
		for hash, more := range x.more {
			if t.count.done || hash <= t.count.upTo {
				t.count.sum.add(more)
			}
		}
	}
	return err
}

func (t *Table) tx(tx state.Tx) *Tx { return &Tx{tx, t.g, t.lease, t.shared, make(map[string]Totals)} }

func (t *Table) view(fn func(tx state.Reader) error) error {
	return t.state.View(context.Background(), fn)
}

// Get implements Index.
func (t *Table) Get(hash string) (r *Record, err error) {
	err = t.view(func(tx state.Reader) error { r, err = get(tx, t.g, hash); return err })
	return r, err
}

// Users implements Index.
func (t *Table) Users(file string) (hashes []string, err error) {
	err = t.view(func(tx state.Reader) error { hashes, err = suffixes(tx, t.g.nar(), file+"\x00"); return err })
	return hashes, err
}

// Referrers implements Index.
func (t *Table) Referrers(hash string) (hashes []string, err error) {
	err = t.view(func(tx state.Reader) error { hashes, err = suffixes(tx, t.g.ref(), hash); return err })
	return slices.DeleteFunc(hashes, func(h string) bool { return h == hash }), err
}

// Each implements Index.
func (t *Table) Each(fn func(hash string, r *Record, err error) error) error {
	return t.state.Scan(context.Background(), t.g.path(), state.Range{}, func(page []state.Entry) error {
		for _, e := range page {
			r, err := decode(e.Key, e.Value)
			if err := fn(e.Key, r, err); err != nil {
				return err
			}
		}
		return nil
	})
}

// Prune removes rows of the tables nar and ref that their record does not call for,
// as a damaged one leaves them, and uses of paths that are not here.
func (t *Table) Prune() error {
	err := t.prune(t.g.nar(), func(key string) (hash, word string) { word, hash, _ = strings.Cut(key, "\x00"); return hash, word })
	if err == nil {
		err = t.prune(t.g.ref(), func(key string) (hash, word string) { return key[32:], key[:32] + "-" })
	}
	if err == nil {
		err = t.prune(UseBucket, func(key string) (hash, word string) { return key, "" })
	}
	return err
}

// prune goes through a table. parse tells whose a row is, and what its record then has.
func (t *Table) prune(bucket string, parse func(key string) (hash, word string)) error {
	return t.state.Scan(context.Background(), bucket, state.Range{}, func(page []state.Entry) error {
		for _, e := range page {
			hash, word := parse(e.Key)
			stale := false
			look := func(tx state.Reader) error {
				v, err := tx.Get(t.g.path(), hash)
				stale = v == nil || !bytes.Contains(v, []byte(word))
				return err
			}
			if err := t.view(look); err != nil {
				return err
			}
			if !stale {
				continue
			}
			err := t.Change([]string{PathLock(hash)}, func(tx *Tx) error {
				if err := look(tx); err != nil || !stale {
					return err
				}
				return tx.Tx.Delete(bucket, e.Key)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func noError(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
