package index

import (
	"context"
	"encoding/json"
	"time"

	"narwharf/cache/state"
)

// Where servers share the state nobody opens or closes the index: a start finds it as the
// last commit left it, and does not compare it with the files. Each change of a record is told
// by a notice, and what was counted last is a row.

// RecordTopic and a hash part are the topic of a record that has changed, where servers
// share the state.
const RecordTopic = "index/record/"

// CountedTopic is that of another count.
const CountedTopic = "index/counted"

const (
	keyCounted = "counted" // of metaBucket: cleanNote, by Recount
	keyChecked = "checked" // when the files were last compared, in Unix seconds, as state.Uint64 reads it
)

// openShared is what is left of Open.
func (t *Table) openShared(tx state.Tx) error {
	text, err := tx.Get(metaBucket, keyCounted)
	t.recall(text)
	return err
}

// Reload reads what another server has counted.
func (t *Table) Reload() error {
	return t.view(func(tx state.Reader) error {
		text, err := tx.Get(metaBucket, keyCounted)
		t.recall(text)
		return err
	})
}

// Recount counts all records, and notes that for all servers with how many NAR files
// there are.
func (t *Table) Recount(ctx context.Context, files Files) error {
	var sum Totals
	err := t.state.Scan(ctx, t.g.path(), state.Range{}, func(page []state.Entry) error {
		for _, e := range page {
			if size, ok := narSize(e.Value); ok {
				sum.add(Totals{Paths: 1, NarSize: size})
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	text, err := json.Marshal(cleanNote{sum, files, time.Now().UTC(), true})
	if err != nil {
		return err
	}
	err = t.state.Update(ctx, []string{lockMeta}, func(tx state.Tx) error {
		tx.Notify(CountedTopic)
		return tx.Put(metaBucket, keyCounted, text)
	})
	if err == nil {
		t.recall(text)
	}
	return err
}

// Checked is when a server last began to compare the files with the index, the zero time if none
// did.
func (t *Table) Checked(ctx context.Context) (at time.Time, err error) {
	err = t.state.View(ctx, func(tx state.Reader) error {
		v, err := tx.Get(metaBucket, keyChecked)
		if v != nil {
			at = time.Unix(int64(state.Uint64(v)), 0)
		}
		return err
	})
	return at, err
}

// SetChecked notes that a comparison that began then has ended.
func (t *Table) SetChecked(ctx context.Context, began time.Time) error {
	return t.state.Update(ctx, []string{lockMeta}, func(tx state.Tx) error {
		return tx.Put(metaBucket, keyChecked, []byte(state.Uint64Key(uint64(began.Unix()))))
	})
}
