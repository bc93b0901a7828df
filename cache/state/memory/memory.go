// Package memory is a state that lasts as long as the process: for tests of the
// layers above, where they need no file.
//
// It keeps the contract of package state to the letter and promises no more:
// one Update runs at a time, whatever the names of its locks.
package memory

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"narwharf/cache/state"
)

// Store is a state.Store.
type Store struct {
	clock    func() time.Time
	watchers state.Watchers

	mu      sync.RWMutex // held for writing by an Update, for reading by a View
	closed  bool
	buckets map[string][]state.Entry // sorted
	next    map[string]uint64        // of a log: the position of the next record
}

var _ state.Store = (*Store)(nil)

// New returns an empty state. A nil clock is time.Now.
func New(clock func() time.Time) *Store {
	if clock == nil {
		clock = time.Now
	}
	return &Store{clock: clock, buckets: map[string][]state.Entry{}, next: map[string]uint64{}}
}

// String implements state.Store.
func (s *Store) String() string { return "memory" }

// Close implements state.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// usable tells why a transaction cannot begin.
func (s *Store) usable(ctx context.Context) error {
	if s.closed {
		return state.ErrClosed
	}
	return ctx.Err()
}

// View implements state.Store.
func (s *Store) View(ctx context.Context, fn func(tx state.Reader) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	return fn(&tx{s: s})
}

// Update implements state.Store.
func (s *Store) Update(ctx context.Context, _ []string, fn func(tx state.Tx) error) error {
	topics, err := s.update(ctx, fn)
	if err == nil {
		s.watchers.Tell(topics)
	}
	return err
}

func (s *Store) update(ctx context.Context, fn func(tx state.Tx) error) (topics []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	t := &tx{s: s, before: map[string][]state.Entry{}}
	done := false
	defer func() {
		if !done { // an error, or a panic
			maps.Copy(s.buckets, t.before)
		}
	}()
	if err := fn(t); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	done = true
	return t.topics, nil
}

// Scan implements state.Store.
func (s *Store) Scan(ctx context.Context, bucket string, r state.Range, fn func(page []state.Entry) error) error {
	return state.Pages(ctx, s, bucket, r, fn)
}

// Merge implements state.Store.
func (s *Store) Merge(ctx context.Context, bucket string, values map[string]uint64) error {
	return state.MergeByUpdate(ctx, s, bucket, values)
}

// Replace implements state.Store.
func (s *Store) Replace(ctx context.Context, locks []string, bucket string, fill func(put state.PutFunc) error, flip func(tx state.Tx) error) error {
	return state.ReplaceByUpdate(ctx, s, locks, bucket, fill, flip)
}

// Watch implements state.Store.
func (s *Store) Watch(fn func(topics []string)) (stop func()) { return s.watchers.Add(fn) }

// tx is a state.Tx, and a state.Reader.
type tx struct {
	s      *Store
	topics []string
	before map[string][]state.Entry // of the buckets that were changed
}

var _ state.Tx = (*tx)(nil)

// change is for the first write of a bucket, and all later ones.
func (x *tx) change(bucket string) []state.Entry {
	if _, changed := x.before[bucket]; !changed {
		x.before[bucket] = slices.Clone(x.s.buckets[bucket])
	}
	return x.s.buckets[bucket]
}

// find returns where a key is, or would be.
func find(list []state.Entry, key string) (at int, there bool) {
	return slices.BinarySearchFunc(list, key, func(e state.Entry, key string) int { return strings.Compare(e.Key, key) })
}

// Get implements state.Reader.
func (x *tx) Get(bucket, key string) ([]byte, error) {
	list := x.s.buckets[bucket]
	if i, there := find(list, key); there {
		return append([]byte{}, list[i].Value...), nil
	}
	return nil, nil
}

// List implements state.Reader.
func (x *tx) List(bucket string, r state.Range) (page []state.Entry, err error) {
	list := x.s.buckets[bucket]
	from, _ := find(list, r.From)
	to := len(list)
	if r.To != "" {
		to, _ = find(list, r.To)
	}
	limit := state.PageSize(r.Limit)
	for from < to && len(page) < limit {
		at := from
		if r.Reverse {
			to--
			at = to
		} else {
			from++
		}
		page = append(page, state.Entry{Key: list[at].Key, Value: append([]byte{}, list[at].Value...)})
	}
	return page, nil
}

// ReadLog implements state.Reader.
func (x *tx) ReadLog(log string, from uint64, limit int) ([]state.Record, error) {
	list, err := x.List(log, state.Range{From: state.Uint64Key(from), Limit: limit})
	return state.Records(list), err
}

// Now implements state.Reader.
func (x *tx) Now() (time.Time, error) { return x.s.clock(), nil }

// Put implements state.Tx.
func (x *tx) Put(bucket, key string, value []byte) error {
	if err := state.CheckEntry(bucket, key, value); err != nil {
		return err
	}
	list := x.change(bucket)
	i, there := find(list, key)
	if !there {
		list = slices.Insert(list, i, state.Entry{Key: key})
		x.s.buckets[bucket] = list
	}
	list[i].Value = append([]byte{}, value...)
	return nil
}

// Delete implements state.Tx.
func (x *tx) Delete(bucket, key string) error {
	if i, there := find(x.s.buckets[bucket], key); there {
		x.s.buckets[bucket] = slices.Delete(x.change(bucket), i, i+1)
	}
	return nil
}

// Clear implements state.Tx.
func (x *tx) Clear(bucket string) error {
	for name := range x.s.buckets {
		if name == bucket || strings.HasPrefix(name, bucket+"/") {
			x.change(name)
			delete(x.s.buckets, name)
		}
	}
	return nil
}

// Append implements state.Tx.
func (x *tx) Append(log string, encode func(position uint64) ([]byte, error)) error {
	position := x.s.next[log] + 1
	x.s.next[log] = position // for good: a position is not used twice
	value, err := encode(position)
	if err != nil {
		return err
	}
	return x.Put(log, state.Uint64Key(position), value)
}

// Trim implements state.Tx.
func (x *tx) Trim(log string, below uint64) error {
	list := x.change(log)
	n, _ := find(list, state.Uint64Key(below))
	x.s.buckets[log] = slices.Delete(list, 0, n)
	return nil
}

// Notify implements state.Tx.
func (x *tx) Notify(topics ...string) { x.topics = append(x.topics, topics...) }
