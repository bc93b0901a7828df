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
	"io"
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
	Place  string           // of the server that opens it, for state.Freeze
}

// Store is a state.Store.
type Store struct {
	db    *bbolt.DB
	path  string
	place string
	clock func() time.Time

	mu      sync.Mutex // guards what follows
	queue   []*update
	writing bool
	closed  bool
	open    sync.WaitGroup // transactions that have begun

	watchers state.Watchers
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
	for _, damage := range []error{bolterrors.ErrInvalid, bolterrors.ErrChecksum, bolterrors.ErrVersionMismatch} {
		if errors.Is(err, damage) {
			return nil, fmt.Errorf("open %s: it is %w: %w", path, state.ErrDamaged, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &Store{db: db, path: path, place: o.Place, clock: o.Clock}, nil
}

// String implements state.Store.
func (s *Store) String() string { return s.path }

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

// Snapshot writes the whole file as it is at one moment: another process can open what
// was written. Others read and write meanwhile, but for one who makes the file grow.
func (s *Store) Snapshot(ctx context.Context, w io.Writer) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.open.Done()
	return s.db.View(func(t *bbolt.Tx) error {
		_, err := t.WriteTo(w)
		return err
	})
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

// Watch implements state.Store. Topics are told before the Update that notified
// of them returns.
func (s *Store) Watch(fn func(topics []string)) (stop func()) { return s.watchers.Add(fn) }
