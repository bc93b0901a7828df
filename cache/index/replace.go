package index

import (
	"context"
	"errors"
	"fmt"

	"narwharf/cache/state"
)

// Each implements Index.
func (t *Table) Each(fn func(*Record) error) error {
	return t.pages(func(page []state.Entry) error {
		for _, e := range page {
			r, err := decode(e.Key, e.Value)
			if err != nil {
				return err
			}
			if err := fn(r); err != nil {
				return err
			}
		}
		return nil
	})
}

// pages calls fn with all records, a page at a time. It fails if a Replace turned
// the generations meanwhile.
func (t *Table) pages(fn func(page []state.Entry) error) error {
	var from, now generation
	if err := t.view(func(_ state.Reader, g generation) error { from = g; return nil }); err != nil {
		return err
	}
	if err := t.state.Scan(context.Background(), from.path(), state.Range{}, fn); err != nil {
		return err
	}
	if err := t.view(func(_ state.Reader, g generation) error { now = g; return nil }); err != nil {
		return err
	}
	if now != from {
		return errors.New("the index was replaced while it was read: try again")
	}
	return nil
}

// Replace implements Index. A Put or Delete meanwhile goes to the old content
// and is lost with it; the caller sees to it that there is none.
func (t *Table) Replace(fill func(put func(*Record) error) error) error {
	var old generation
	err := t.view(func(_ state.Reader, g generation) error { old = g; return nil })
	if err != nil {
		return fmt.Errorf("replace index: %w", err)
	}
	next := old.other()
	var sum Totals
	last, turning := "", false
	fillNext := func(write state.PutFunc) error {
		err := fill(func(r *Record) error {
			hash := r.Info.Path.Hash()
			if hash <= last {
				return fmt.Errorf("the record of %s comes after that of %s", hash, last)
			}
			last = hash
			sum.add(Totals{Paths: 1, NarSize: r.Info.NarSize})
			return put(write, next, r)
		})
		if err == nil { // no change is counted between here and the turn
			t.turn.Lock()
			turning = true
		}
		return err
	}
	flip := func(tx state.Tx) error {
		if err := tx.Put(metaBucket, keyGen, []byte(next)); err != nil {
			return err
		}
		return tx.Clear(old.root())
	}
	err = t.state.Replace(context.Background(), []string{lockAll}, next.root(), fillNext, flip)
	if turning {
		defer t.turn.Unlock()
	}
	if err != nil {
		return fmt.Errorf("replace index: %w", err)
	}
	t.mu.Lock()
	t.count = count{done: true, sum: sum}
	t.mu.Unlock()
	return nil
}
