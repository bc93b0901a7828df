// Package bolt is a state in one bbolt file, for a server on one machine.
//
// A bucket "a/b" is the bucket b within the bucket a. A log is a bucket whose
// keys are positions, 8 bytes, big endian. One process at a time has the file.
//
// Updates that come while another is being synced share the next commit: with
// many writers one sync serves them all, and a single one waits for no company.
// So all updates run one after the other, and the names of locks are not needed.
package bolt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"narwharf/cache/state"
)

// Options of Open; the zero value is for servers.
type Options struct {
	Wait   time.Duration    // for another process that has the file; 0: 3 s
	NoSync bool             // for tests: a power cut may lose what was written
	Clock  func() time.Time // nil: time.Now
}

// Store is a state.Store.
type Store struct {
	db    *bbolt.DB
	path  string
	clock func() time.Time

	mu      sync.Mutex // guards what follows
	queue   []*update
	writing bool
	closed  bool
	open    sync.WaitGroup // transactions that have begun

	watchers watchers
}

var _ state.Store = (*Store)(nil)

// Open opens the file, making it if it is absent. It returns state.ErrInUse,
// wrapped, when another process keeps the file for longer than o.Wait.
func Open(path string, o Options) (*Store, error) {
	if o.Wait == 0 {
		o.Wait = 3 * time.Second
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: o.Wait, FreelistType: bbolt.FreelistMapType, NoSync: o.NoSync})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%s is %w by another process", path, state.ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &Store{db: db, path: path, clock: o.Clock}, nil
}

// Close implements state.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.open.Wait()
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close %s: %w", s.path, err)
	}
	return nil
}

// begin counts a transaction, for Close to wait for.
func (s *Store) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return state.ErrClosed
	}
	s.open.Add(1)
	return nil
}

// View implements state.Store.
func (s *Store) View(ctx context.Context, fn func(tx state.Reader) error) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.open.Done()
	return s.db.View(func(t *bbolt.Tx) error { return fn(&tx{t: t, clock: s.clock}) })
}

// Scan implements state.Store.
func (s *Store) Scan(ctx context.Context, bucket string, r state.Range, fn func(page []state.Entry) error) error {
	return state.Pages(ctx, s, bucket, r, fn)
}

// mergeBatch and replaceBatch bound the memory and the length of a transaction.
const (
	mergeBatch   = state.MaxPage
	replaceBatch = 8 << 20 // bytes
)

// Merge implements state.Store.
func (s *Store) Merge(ctx context.Context, bucket string, values map[string]uint64) error {
	var batch []string
	flush := func() error {
		err := s.Update(ctx, nil, func(tx state.Tx) error {
			for _, key := range batch {
				old, err := tx.Get(bucket, key)
				if err != nil {
					return err
				}
				if n := values[key]; old == nil || n > state.Uint64(old) {
					if err := tx.Put(bucket, key, []byte(state.Uint64Key(n))); err != nil {
						return err
					}
				}
			}
			return nil
		})
		batch = batch[:0]
		return err
	}
	for key := range values {
		if batch = append(batch, key); len(batch) == mergeBatch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// Replace implements state.Store.
func (s *Store) Replace(ctx context.Context, locks []string, bucket string, fill func(put state.PutFunc) error, flip func(tx state.Tx) error) error {
	type item struct {
		bucket, key string
		value       []byte
	}
	var pending []item
	size, first := 0, true
	flush := func() error {
		err := s.Update(ctx, nil, func(tx state.Tx) error {
			if first {
				if err := tx.Clear(bucket); err != nil {
					return err
				}
			}
			for _, i := range pending {
				if err := tx.Put(i.bucket, i.key, i.value); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			first = false
		}
		pending, size = pending[:0], 0
		return err
	}
	err := fill(func(in, key string, value []byte) error {
		if err := state.Within(bucket, in); err != nil {
			return err
		}
		pending = append(pending, item{in, key, append([]byte{}, value...)})
		if size += len(key) + len(value) + 64; size < replaceBatch {
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

// Watch implements state.Store. Topics are told before the Update that notified
// of them returns.
func (s *Store) Watch(fn func(topics []string)) (stop func()) { return s.watchers.add(fn) }
