package bolt

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"narwharf/cache/state"
)

var _ state.Movable = (*Store)(nil)

// What is about the file itself is beside the buckets of the state.
const (
	own       = ".state"
	frozenKey = "frozen"
)

// frozen is what Freeze said, nil if this Store may write.
func (s *Store) frozen(t *bbolt.Tx) *state.Frozen {
	if b := t.Bucket([]byte(own)); b != nil {
		return state.FrozenFor(b.Get([]byte(frozenKey)), s.place)
	}
	return nil
}

// Freeze implements state.Movable.
func (s *Store) Freeze(ctx context.Context, f *state.Freeze) error {
	return s.directly(ctx, func(t *bbolt.Tx) error {
		b, err := t.CreateBucketIfNotExists([]byte(own))
		if err != nil {
			return err
		}
		if f == nil {
			return b.Delete([]byte(frozenKey))
		}
		return b.Put([]byte(frozenKey), f.Text())
	})
}

// Frozen implements state.Movable.
func (s *Store) Frozen(ctx context.Context) (f *state.Frozen, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.open.Done()
	err = s.db.View(func(t *bbolt.Tx) error { f = s.frozen(t); return nil })
	return f, err
}

// directly is an Update that no Freeze keeps off.
func (s *Store) directly(ctx context.Context, fn func(t *bbolt.Tx) error) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.open.Done()
	if err := s.db.Update(fn); err != nil {
		return fmt.Errorf("write to %s: %w", s.path, err)
	}
	return nil
}

// Names implements state.Movable. Logs are buckets to which was appended: an earlier version did not
// note that, and then they are among the buckets.
func (s *Store) Names(ctx context.Context) (buckets, logs []string, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, nil, err
	}
	defer s.open.Done()
	var walk func(name string, b *bbolt.Bucket) error
	walk = func(name string, b *bbolt.Bucket) error {
		if b.Sequence() > 0 {
			logs = append(logs, name)
		} else {
			buckets = append(buckets, name)
		}
		return b.ForEachBucket(func(k []byte) error { return walk(name+"/"+string(k), b.Bucket(k)) })
	}
	err = s.db.View(func(t *bbolt.Tx) error {
		return t.ForEach(func(name []byte, b *bbolt.Bucket) error {
			if string(name) == own {
				return nil
			}
			return walk(string(name), b)
		})
	})
	slices.Sort(buckets)
	slices.Sort(logs)
	return buckets, logs, err
}

// Records implements state.Movable.
func (s *Store) Records(ctx context.Context, log string, from uint64, limit int) (list []state.Record, err error) {
	err = s.View(ctx, func(tx state.Reader) error { list, err = tx.ReadLog(log, from, limit); return err })
	return list, err
}

// Restore implements state.Movable.
func (s *Store) Restore(ctx context.Context, log string, from, to uint64, records []state.Record) error {
	return s.directly(ctx, func(t *bbolt.Tx) error {
		b, err := (&tx{t: t}).makeBucket(log)
		if err != nil {
			return err
		}
		top := b.Sequence()
		keep := make(map[string]bool, len(records))
		for _, r := range records {
			key := state.Uint64Key(r.Position)
			keep[key] = true
			if err := b.Put([]byte(key), append([]byte{}, r.Value...)); err != nil {
				return err
			}
			top = max(top, r.Position)
		}
		var gone [][]byte
		c := b.Cursor()
		for k, v := c.Seek([]byte(state.Uint64Key(from))); k != nil && (to == 0 || state.Uint64(string(k)) < to); k, v = c.Next() {
			if v != nil && !keep[string(k)] {
				gone = append(gone, bytes.Clone(k))
			}
		}
		for _, k := range gone {
			if err := b.Delete(k); err != nil {
				return err
			}
		}
		return b.SetSequence(max(top, 1))
	})
}
