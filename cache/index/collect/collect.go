// Package collect decides which paths may be deleted, and deletes their records. Files
// are for package upload to delete, after that.
package collect

import (
	"context"
	"errors"
	"slices"

	"narwharf/cache/index"
	"narwharf/cache/root"
	"narwharf/narinfo"
)

// Gone is a path whose record was deleted.
type Gone struct {
	Path    narinfo.Path
	NarSize int64
	Freed   int64 // bytes of the NAR file that no path has any more
}

// Result is what Records did. Doomed are NAR files that no record names any more.
type Result struct {
	Gone   []Gone
	Doomed []string
}

// May tells in the transaction whether a path may go that nothing keeps.
type May func(tx *index.Tx, r *index.Record) (bool, error)

// collection is a batch in its transaction.
type collection struct {
	records   map[string]*index.Record // that may go, by hash part
	referrers map[string][]string
	depths    map[string]uint64
	result    Result
}

// errChanged is for a record that has files whose locks are not held.
var errChanged = errors.New("a path has changed meanwhile")

// Records deletes the records of those of a batch of paths, by hash part, that nothing
// keeps, and says which went; see upload.Store.Collect.
func Records(ctx context.Context, idx index.Index, batch []string, may May) (Result, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Result{}, err
		}
		r, err := records(idx, batch, may)
		if !errors.Is(err, errChanged) {
			return r, err
		}
	}
}

// records is one attempt of Records.
func records(idx index.Index, batch []string, may May) (Result, error) {
	locks, err := locksOf(idx, batch)
	if err != nil {
		return Result{}, err
	}
	var c *collection
	err = idx.Change(locks, func(tx *index.Tx) error {
		c = &collection{make(map[string]*index.Record), make(map[string][]string), make(map[string]uint64), Result{}}
		for _, hash := range batch {
			if err := c.consider(tx, hash, may); err != nil {
				return err
			}
		}
		if err := c.keepReferred(tx, batch); err != nil {
			return err
		}
		if !c.lockedBy(locks) {
			return errChanged
		}
		return c.remove(tx, batch)
	})
	if err != nil {
		return Result{}, err
	}
	return c.result, nil
}

// lockedBy tells whether the files of what goes are locked.
func (c *collection) lockedBy(locks []string) bool {
	for _, r := range c.records {
		for _, name := range r.Files() {
			if !slices.Contains(locks, index.NarLock(name)) {
				return false
			}
		}
	}
	return true
}

// locksOf are the locks of what a batch may change.
func locksOf(idx index.Index, batch []string) ([]string, error) {
	locks := []string{index.TurnLock}
	for _, hash := range batch {
		locks = append(locks, index.PathLock(hash))
		r, err := idx.Get(hash)
		if errors.Is(err, index.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, name := range r.Files() {
			locks = append(locks, index.NarLock(name))
		}
	}
	slices.Sort(locks)
	return slices.Compact(locks), nil
}

// consider takes a path up, unless it has reasons of its own to stay.
func (c *collection) consider(tx *index.Tx, hash string, may May) error {
	r, err := tx.Record(hash)
	if errors.Is(err, index.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if leased, err := tx.Leased(hash); leased || err != nil {
		return err
	}
	if owners, err := root.Of(tx, hash); len(owners) > 0 || err != nil {
		return err
	}
	if ok, err := may(tx, r); !ok || err != nil {
		return err
	}
	c.records[hash] = r
	return nil
}

// keepReferred leaves out what a path refers to that stays, until all is whole.
func (c *collection) keepReferred(tx *index.Tx, batch []string) error {
	for _, hash := range batch {
		if c.records[hash] == nil {
			continue
		}
		by, err := tx.ReferredBy(hash, len(c.records)+1)
		if err != nil {
			return err
		}
		c.referrers[hash] = by
	}
	for again := true; again; {
		again = false
		for _, hash := range batch { // in their order one turn does for all but cycles
			stays := slices.ContainsFunc(c.referrers[hash], func(by string) bool { return c.records[by] == nil })
			if stays && c.records[hash] != nil {
				delete(c.records, hash)
				again = true
			}
		}
	}
	return nil
}

// depth is how many others of the batch have to go before a path.
func (c *collection) depth(hash string) uint64 {
	depth, known := c.depths[hash]
	if known {
		return depth
	}
	c.depths[hash] = 0 // ends a cycle
	for _, by := range c.referrers[hash] {
		depth = max(depth, c.depth(by)+1)
	}
	c.depths[hash] = depth
	return depth
}

// remove deletes the records.
func (c *collection) remove(tx *index.Tx, batch []string) error {
	deepest := uint64(0)
	for hash := range c.records {
		deepest = max(deepest, c.depth(hash))
	}
	if len(c.records) == 0 {
		return nil
	}
	turn, err := tx.NextTurn(int(deepest) + 1)
	if err != nil {
		return err
	}
	for _, hash := range batch {
		r := c.records[hash]
		if r == nil {
			continue
		}
		delete(c.records, hash) // it may be in the batch twice
		doomed, err := tx.Collect(r, turn+c.depths[hash])
		if err != nil {
			return err
		}
		g := Gone{Path: r.Info.Path, NarSize: r.Info.NarSize}
		if slices.Contains(doomed, r.Info.URL) {
			g.Freed = r.Info.FileSize
		}
		c.result.Gone, c.result.Doomed = append(c.result.Gone, g), append(c.result.Doomed, doomed...)
	}
	return nil
}
