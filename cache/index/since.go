package index

import (
	"bytes"
	"context"
	"time"

	"narwharf/cache/state"
)

// keySince of metaBucket is Since, in Unix seconds, as state.Uint64 reads it; 0: always.
const keySince = "since"

// usesNote is in the value of "clean" where the uses of paths were noted until then. An
// older narwharf does not note them.
const usesNote = `"uses":true`

// Since is from when on it is known what was used: what was looked up before by somebody
// who may upload is not. It is the zero time where nothing could be, and now where that
// is not known.
func (t *Table) Since(ctx context.Context) (since time.Time, err error) {
	err = t.state.View(ctx, func(tx state.Reader) error {
		v, err := tx.Get(metaBucket, keySince)
		switch {
		case err != nil:
			return err
		case v == nil:
			since, err = tx.Now()
			return err
		}
		if since = time.Unix(int64(state.Uint64(v)), 0); since.Unix() == 0 {
			since = time.Time{}
		}
		return nil
	})
	return since, err
}

// Began notes that the uses of paths are known from now on, if they were not before. In a
// cache that is empty they are known.
func (t *Table) Began(empty bool) error {
	return t.state.Update(context.Background(), []string{lockMeta}, func(tx state.Tx) error {
		if v, err := tx.Get(metaBucket, keySince); v != nil || err != nil {
			return err
		}
		return putSince(tx, empty)
	})
}

func putSince(tx state.Tx, always bool) error {
	now, err := tx.Now()
	if err != nil {
		return err
	}
	if always {
		now = time.Unix(0, 0)
	}
	return tx.Put(metaBucket, keySince, []byte(state.Uint64Key(uint64(now.Unix()))))
}

// sinceOpened sees whether an older narwharf had the state meanwhile, of which clean is
// the note. Whether there are files that a new index does not know is for Began.
func (t *Table) sinceOpened(tx state.Tx, clean []byte) error {
	v, err := tx.Get(metaBucket, keySince)
	if err != nil || v != nil && (clean == nil || bytes.Contains(clean, []byte(usesNote))) {
		return err
	}
	some, err := tx.List(t.g.path(), state.Range{Limit: 1})
	if err != nil || len(some) == 0 && clean == nil {
		return err
	}
	return putSince(tx, len(some) == 0)
}
