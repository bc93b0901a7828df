package index

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"narwharf/cache/state"
)

// UseBucket has when paths were used last: <hash> -> Unix seconds, as state.Uint64 reads
// them. One that was not used since its upload has no row.
const UseBucket = "cache/use"

// maxUse is how many paths one transaction of Use is about.
const maxUse = 500

// Use notes that somebody who may upload is about to be told that paths are here, by hash
// part. Nix remembers that for 30 days and does not send them. When Use has returned, all
// but the missing ones, which are not here, are kept for a lease. Of paths that were used
// a short while ago nothing is written.
func (t *Table) Use(ctx context.Context, hashes []string) (missing []string, err error) {
	for part := range slices.Chunk(hashes, maxUse) {
		gone, err := t.use(ctx, part)
		if err != nil {
			return nil, err
		}
		missing = append(missing, gone...)
	}
	return missing, nil
}

func (t *Table) use(ctx context.Context, hashes []string) (missing []string, err error) {
	var due, locks []string
	err = t.state.View(ctx, func(tx state.Reader) error {
		due, missing, locks = nil, nil, nil
		for _, hash := range hashes {
			there, lately, err := t.usedLately(tx, hash)
			switch {
			case err != nil:
				return err
			case !there:
				missing = append(missing, hash)
			case !lately:
				due, locks = append(due, hash), append(locks, state.Shared(PathLock(hash)))
			}
		}
		return nil
	})
	if err != nil || len(due) == 0 {
		return missing, err
	}
	var gone []string
	err = t.state.Update(ctx, locks, func(tx state.Tx) error {
		gone = nil
		x := t.tx(tx)
		for _, hash := range due {
			there, err := x.Use(hash)
			if err != nil {
				return err
			}
			if !there {
				gone = append(gone, hash)
			}
		}
		return nil
	})
	return append(missing, gone...), err
}

// UsedLately tells whether Use would write nothing, and find the path.
func (t *Table) UsedLately(hash string) (lately bool, err error) {
	err = t.view(func(tx state.Reader) error {
		_, lately, err = t.usedLately(tx, hash)
		return err
	})
	return lately, err
}

func (t *Table) usedLately(tx state.Reader, hash string) (there, lately bool, err error) {
	v, err := tx.Get(t.g.path(), hash)
	if err != nil || v == nil {
		return false, false, err
	}
	used, now, err := used(tx, hash, v)
	return true, now.Sub(used) < t.lease/4, err
}

// used is when a path was used last, of which v is the encoded record, and what time it is.
func used(tx state.Reader, hash string, v []byte) (used, now time.Time, err error) {
	if now, err = tx.Now(); err != nil {
		return used, now, err
	}
	row, err := tx.Get(UseBucket, hash)
	if row != nil {
		used = time.Unix(int64(state.Uint64(row)), 0)
	}
	var h recordHead
	head, _, _ := bytes.Cut(v, []byte("\n"))
	if json.Unmarshal(head, &h) == nil && h.Uploaded.After(used) { // what is damaged is for fsck
		used = h.Uploaded
	}
	return used, now, err
}

// Use is Table.Use in a transaction that shares the path's lock.
func (x *Tx) Use(hash string) (there bool, err error) {
	v, err := x.Get(x.g.path(), hash)
	if err != nil || v == nil {
		return false, err
	}
	used, now, err := used(x, hash, v)
	if err != nil || now.Sub(used) < x.lease/4 {
		return true, err
	}
	return true, x.Tx.Put(UseBucket, hash, []byte(state.Uint64Key(uint64(now.Unix()))))
}

// Leased tells whether a path that is here may not go, whoever asks: it was used less
// than a lease ago, or somebody was told of it then and it was not noted.
func (x *Tx) Leased(hash string) (bool, error) {
	v, err := x.Get(x.g.path(), hash)
	if err != nil || v == nil {
		return false, err
	}
	used, now, err := used(x, hash, v)
	return now.Sub(used) <= x.lease+x.lease/4, err
}
