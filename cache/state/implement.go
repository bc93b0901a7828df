package state

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// What follows is for implementations.

// PageSize is how many entries a List with this limit returns at most.
func PageSize(limit int) int {
	if limit <= 0 || limit > MaxPage {
		return MaxPage
	}
	return limit
}

// Pages is Scan by Views, for implementations.
func Pages(ctx context.Context, s Store, bucket string, r Range, fn func(page []Entry) error) error {
	return r.pages(func(r Range) (list []Entry, err error) {
		err = s.View(ctx, func(tx Reader) (err error) {
			list, err = tx.List(bucket, r)
			return err
		})
		return list, err
	}, fn)
}

// CheckEntry returns ErrLimit, wrapped, for what no implementation takes.
func CheckEntry(bucket, key string, value []byte) error {
	switch {
	case bucket == "" || len(bucket) > MaxBucket || strings.Contains("/"+bucket+"/", "//") || strings.Contains(bucket, "\x00") || !utf8.ValidString(bucket):
		return fmt.Errorf("bucket %q is no name: %w", bucket, ErrLimit)
	case key == "" || len(key) > MaxKey:
		return fmt.Errorf("key of %d bytes in %s, from 1 to %d may be: %w", len(key), bucket, MaxKey, ErrLimit)
	case len(value) > MaxValue:
		return fmt.Errorf("value of %d bytes in %s, %d at most: %w", len(value), bucket, MaxValue, ErrLimit)
	}
	return nil
}

// Records makes records of a log from the entries of a bucket whose keys are
// positions.
func Records(list []Entry) []Record {
	records := make([]Record, len(list))
	for i, e := range list {
		records[i] = Record{Position: Uint64(e.Key), Value: e.Value}
	}
	return records
}

// MergeByUpdate is Merge by Updates, for a store that runs one Update at a time: it reads
// what it decides on, and takes no lock.
func MergeByUpdate(ctx context.Context, s Store, bucket string, values map[string]uint64) error {
	for keys := range slices.Chunk(slices.Sorted(maps.Keys(values)), MaxPage) {
		err := s.Update(ctx, nil, func(tx Tx) error {
			for _, key := range keys {
				old, err := tx.Get(bucket, key)
				if err != nil {
					return err
				}
				if n := values[key]; old == nil || n > Uint64(old) {
					if err := tx.Put(bucket, key, []byte(Uint64Key(n))); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ReplaceByUpdate is Replace by Updates, of some MiB each.
func ReplaceByUpdate(ctx context.Context, s Store, locks []string, bucket string, fill func(put PutFunc) error, flip func(tx Tx) error) error {
	const batch = 8 << 20
	type item struct {
		bucket, key string
		value       []byte
	}
	var pending []item
	size := 0
	if err := s.Update(ctx, nil, func(tx Tx) error { return tx.Clear(bucket) }); err != nil {
		return err
	}
	flush := func() error {
		err := s.Update(ctx, nil, func(tx Tx) error {
			for _, i := range pending {
				if err := tx.Put(i.bucket, i.key, i.value); err != nil {
					return err
				}
			}
			return nil
		})
		pending, size = pending[:0], 0
		return err
	}
	err := fill(func(in, key string, value []byte) error {
		if in != bucket && !strings.HasPrefix(in, bucket+"/") {
			return fmt.Errorf("%s is not within %s, which is replaced", in, bucket)
		}
		pending = append(pending, item{in, key, append([]byte{}, value...)})
		if size += len(key) + len(value) + 64; size < batch {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return err
	}
	return s.Update(ctx, locks, flip)
}

// Watchers are who wants notices. The zero value is ready; it is for
// implementations.
type Watchers struct {
	mu  sync.Mutex
	all []*watcher
}

type watcher struct {
	mu sync.Mutex // held while fn runs, and to stop
	fn func(topics []string)
}

// Add is Store.Watch.
func (w *Watchers) Add(fn func(topics []string)) (stop func()) {
	one := &watcher{fn: fn}
	w.mu.Lock()
	w.all = append(slices.Clone(w.all), one)
	w.mu.Unlock()
	return func() {
		w.mu.Lock()
		w.all = slices.DeleteFunc(slices.Clone(w.all), func(o *watcher) bool { return o == one })
		w.mu.Unlock()
		one.mu.Lock()
		one.fn = func([]string) {}
		one.mu.Unlock()
	}
}

// Tell passes topics on, each once.
func (w *Watchers) Tell(topics []string) {
	if len(topics) == 0 {
		return
	}
	slices.Sort(topics)
	topics = slices.Compact(topics)
	w.mu.Lock()
	all := w.all
	w.mu.Unlock()
	for _, one := range all {
		one.mu.Lock()
		one.fn(topics)
		one.mu.Unlock()
	}
}
