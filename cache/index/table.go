package index

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"narwharf/cache/state"
)

// Buckets and keys of the state. The bucket "index/meta" names, under
// "generation", the generation in use ("1" or "2"); Replace fills the other and
// then turns the name. A generation has three tables:
//
//	index/1/path  <hash>              -> one line of JSON (recordHead), "\n", the narinfo
//	index/1/nar   <file> NUL <hash>   -> ""
//	index/1/ref   <hash> <referrer>   -> ""
//
// meta's key "clean" is there while nobody has the index open for writing. Its
// value is what was counted then (cleanNote), or "1", which an older narwharf
// writes.
const (
	rootBucket = "index"
	metaBucket = rootBucket + "/meta"
	keyGen     = "generation"
	keyClean   = "clean"
	keyVersion = "version"
	version    = "1"
)

// Names of locks. Who turns the generations takes lockAll; who changes a path
// takes that path's, and lockAll as one of many.
const lockAll = "index"

func lockPath(hash string) []string { return []string{state.Shared(lockAll), "path:" + hash} }

// Table is an Index in a state.
type Table struct {
	state state.Store
	dirty bool
	files *Files // as the last Close in order has it, nil if that is not known

	turn  sync.RWMutex // held for reading by changes, for writing where nothing may change
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

// other is the generation that is not in use while g is.
func (g generation) other() generation {
	if g == "1" {
		return "2"
	}
	return "1"
}

// current reads which generation is in use.
func current(tx state.Reader) (generation, error) {
	g, err := tx.Get(metaBucket, keyGen)
	return generation(g), err
}

// Open opens the index in s, which others share. A state written by a newer
// version is refused. Damaged records are not: Get and Each say which and what
// to do, and Replace mends them.
func Open(s state.Store) (*Table, error) {
	t := &Table{state: s}
	err := s.Update(context.Background(), []string{lockAll}, func(tx state.Tx) error {
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
		// A new index may stand over files that are old: it is not clean either.
		clean, err := tx.Get(metaBucket, keyClean)
		if err != nil {
			return err
		}
		t.dirty = clean == nil
		t.recall(clean)
		if err := tx.Delete(metaBucket, keyClean); err != nil {
			return err
		}
		g, err := current(tx)
		if err != nil {
			return err
		}
		if g == "" {
			g = "1"
			if err := tx.Put(metaBucket, keyGen, []byte(g)); err != nil {
				return err
			}
		}
		// A Replace that was cut short leaves its half-filled generation.
		return tx.Clear(g.other().root())
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
	note := t.note(files)
	return t.state.Update(context.Background(), []string{lockAll}, func(tx state.Tx) error {
		return tx.Put(metaBucket, keyClean, note)
	})
}

// view runs fn on one moment of the index.
func (t *Table) view(fn func(tx state.Reader, g generation) error) error {
	return t.state.View(context.Background(), func(tx state.Reader) error {
		g, err := current(tx)
		if err != nil {
			return err
		}
		return fn(tx, g)
	})
}

// change runs fn for one path, and adds what it returns to the count.
func (t *Table) change(hash string, fn func(tx state.Tx, g generation) (Totals, error)) error {
	t.turn.RLock()
	defer t.turn.RUnlock()
	var more Totals
	err := t.state.Update(context.Background(), lockPath(hash), func(tx state.Tx) error {
		g, err := current(tx)
		if err != nil {
			return err
		}
		more, err = fn(tx, g)
		return err
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case errors.Is(err, state.ErrUncertain):
		t.count = count{} // anew, when somebody asks
	case err == nil && (t.count.done || hash <= t.count.upTo):
		t.count.sum.add(more)
	}
	return err
}

// Get implements Index.
func (t *Table) Get(hash string) (r *Record, err error) {
	err = t.view(func(tx state.Reader, g generation) error {
		r, err = get(tx, g, hash)
		if err == nil && r == nil {
			err = ErrNotFound
		}
		return err
	})
	return r, err
}

// Put implements Index.
func (t *Table) Put(r *Record) error {
	hash := r.Info.Path.Hash()
	return t.change(hash, func(tx state.Tx, g generation) (Totals, error) {
		less, err := remove(tx, g, hash)
		if err != nil {
			return Totals{}, err
		}
		more := Totals{Paths: less.Paths + 1, NarSize: less.NarSize + r.Info.NarSize}
		return more, put(tx.Put, g, r)
	})
}

// Delete implements Index.
func (t *Table) Delete(hash string) error {
	return t.change(hash, func(tx state.Tx, g generation) (Totals, error) { return remove(tx, g, hash) })
}

// Users implements Index.
func (t *Table) Users(file string) (hashes []string, err error) {
	err = t.view(func(tx state.Reader, g generation) error {
		hashes, err = suffixes(tx, g.nar(), file+"\x00")
		return err
	})
	return hashes, err
}

// Referrers implements Index.
func (t *Table) Referrers(hash string) (hashes []string, err error) {
	err = t.view(func(tx state.Reader, g generation) error {
		hashes, err = suffixes(tx, g.ref(), hash)
		return err
	})
	return slices.DeleteFunc(hashes, func(h string) bool { return h == hash }), err
}

// suffixes returns what follows prefix in the keys that begin with it.
func suffixes(tx state.Reader, bucket, prefix string) (rest []string, err error) {
	err = state.Each(tx, bucket, state.Prefix(prefix), func(e state.Entry) error {
		rest = append(rest, e.Key[len(prefix):])
		return nil
	})
	return rest, err
}
