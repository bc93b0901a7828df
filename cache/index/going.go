package index

import (
	"cmp"
	"context"
	"slices"

	"narwharf/cache/state"
)

// goingBucket has the paths whose records were deleted and whose narinfo files have to
// follow: <hash> -> Going.Turn, as state.Uint64 reads it. The row is the intention: who
// finds it finishes the work, in the order of turns, so that the file of a path is gone
// before that of anything it refers to.
const (
	goingBucket = "cache/going"
	keyTurn     = "turn" // of metaBucket: the last that was given
)

// TurnLock is held by an Update that calls NextTurn.
const TurnLock = "cache/going"

// Going is a path whose narinfo file has to go.
type Going struct {
	Hash string
	Turn uint64
}

// Going returns what has to go, in the order of turns.
func (t *Table) Going(ctx context.Context) (all []Going, err error) {
	err = t.state.Scan(ctx, goingBucket, state.Range{}, func(page []state.Entry) error {
		for _, e := range page {
			all = append(all, Going{e.Key, state.Uint64(e.Value)})
		}
		return nil
	})
	slices.SortStableFunc(all, func(a, b Going) int { return cmp.Compare(a.Turn, b.Turn) })
	return all, err
}

// IsGoing tells whether the narinfo file of a path has to go.
func (t *Table) IsGoing(hash string) (going bool, err error) {
	err = t.view(func(tx state.Reader) error { going, err = isGoing(tx, hash); return err })
	return going, err
}

func isGoing(tx state.Reader, hash string) (bool, error) {
	v, err := tx.Get(goingBucket, hash)
	return v != nil, err
}

// NextTurn reserves n turns and returns the first.
func (x *Tx) NextTurn(n int) (uint64, error) {
	v, err := x.Get(metaBucket, keyTurn)
	if err != nil {
		return 0, err
	}
	first := state.Uint64(v) + 1
	return first, x.Tx.Put(metaBucket, keyTurn, []byte(state.Uint64Key(first+uint64(n)-1)))
}

// Collect deletes a record, notes that its narinfo file has to go, at its turn, and
// dooms its NAR files that no other record names. It returns those.
func (x *Tx) Collect(r *Record, turn uint64) (doomed []string, err error) {
	hash := r.Info.Path.Hash()
	if err := x.Delete(hash); err != nil {
		return nil, err
	}
	for _, name := range r.Files() {
		if named, err := x.named(name); err != nil {
			return nil, err
		} else if named {
			continue
		}
		f, err := x.File(name)
		if err != nil {
			return nil, err
		}
		f.Doomed = true // Delete has made the row
		if err := x.PutFile(name, f); err != nil {
			return nil, err
		}
		doomed = append(doomed, name)
	}
	return doomed, x.Tx.Put(goingBucket, hash, []byte(state.Uint64Key(turn)))
}

// IsGoing tells whether the narinfo file of a path has to go. Where a record is there
// again, it has not.
func (x *Tx) IsGoing(hash string) (bool, error) {
	going, err := isGoing(x, hash)
	if err != nil || !going {
		return false, err
	}
	v, err := x.Get(x.g.path(), hash)
	return v == nil, err
}

// Gone notes that the narinfo file of a path is gone.
func (x *Tx) Gone(hash string) error { return x.Tx.Delete(goingBucket, hash) }

// ReferredBy returns referrers of a path, itself left out, at most so many.
func (x *Tx) ReferredBy(hash string, most int) (hashes []string, err error) {
	r := state.Prefix(hash)
	r.Limit = most + 1
	rows, err := x.List(x.g.ref(), r)
	for _, e := range rows {
		if by := e.Key[len(hash):]; by != hash && len(hashes) < most {
			hashes = append(hashes, by)
		}
	}
	return hashes, err
}
