package upload

import (
	"context"
	"errors"

	"narwharf/cache/index"
	"narwharf/cache/index/collect"
	"narwharf/cache/state"
)

// Gone is a path that Collect has deleted.
type Gone = collect.Gone

// finishAtOnce is how many narinfo files go in one transaction.
const finishAtOnce = 200

// Collect deletes those of a batch of paths, by hash part, that nothing keeps: each is
// here, all that refers to it is in the batch and goes, it is no root, its lease is over,
// and may says so (nil: yes). All that is read again in the transaction that deletes the
// records: what the caller knew may be old. A batch is a few hundred paths at most, since
// others wait for its transaction.
//
// After an error some may be gone; gone are those whose records are. Whatever else is
// left to do the next Collect, Sweep or start does.
func (s *Store) Collect(ctx context.Context, batch []string, may func(tx *index.Tx, r *index.Record) (bool, error)) (gone []Gone, err error) {
	if err := s.Finish(ctx); err != nil {
		return nil, err
	}
	if may == nil {
		may = func(*index.Tx, *index.Record) (bool, error) { return true, nil }
	}
	r, err := collect.Records(ctx, s.Index, batch, may)
	if errors.Is(err, state.ErrUncertain) {
		s.Changed("") // some may be gone
	}
	if err != nil || len(r.Gone) == 0 {
		return nil, err
	}
	for _, g := range r.Gone {
		s.Changed(g.Path.Hash())
	}
	if err = s.Finish(ctx); err == nil { // not before: what names them must be gone
		_, _, err = s.removeFiles(r.Doomed, func(f *index.File) bool { return f.Doomed })
	}
	return r.Gone, err
}

// Finish removes the narinfo files of paths whose records were collected. A crash, or an
// error of the disk, may have left some. It goes by turns, of which each is durable
// before the next: a cache of files alone has no path without what it refers to.
func (s *Store) Finish(ctx context.Context) error {
	all, err := s.Index.Going(ctx)
	for len(all) > 0 && err == nil {
		n := 1
		for n < len(all) && n < finishAtOnce && all[n].Turn == all[0].Turn {
			n++
		}
		if err = ctx.Err(); err == nil {
			err = s.finish(all[:n])
		}
		all = all[n:]
	}
	return err
}

// finish is one transaction of Finish. A path may have been uploaded again meanwhile: its
// file is the new one then, and its record says so.
func (s *Store) finish(part []index.Going) error {
	var locks []string
	for _, g := range part {
		locks = append(locks, index.PathLock(g.Hash))
	}
	return s.Index.Change(locks, func(tx *index.Tx) error {
		var names []string
		for _, g := range part {
			going, err := tx.IsGoing(g.Hash)
			if err != nil {
				return err
			}
			if going {
				names = append(names, g.Hash+".narinfo", g.Hash+".ls")
			}
		}
		if err := s.Files.Remove(names...); err != nil {
			return err
		}
		for _, g := range part {
			if err := tx.Gone(g.Hash); err != nil {
				return err
			}
		}
		return nil
	})
}
