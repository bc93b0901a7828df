// Package mirror is tables of a state with a copy in memory, for what is read with
// every poll, or with every row of a list.
//
// A Table is a bucket of JSON values. Get and All read memory, which is never
// behind a change by this process, and behind one by another until its notice
// comes: Put notifies of the topic BUCKET/KEY, and whoever watches the state
// passes all notices to Set.Noticed. While the state cannot be read, memory stays
// as it was. What a change decides on it reads with In, in its own transaction.
//
// Values are shared and not to be changed.
package mirror

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"narwharf/cache/state"
)

// Set is the tables of a state.
type Set struct {
	store state.Store
	log   *slog.Logger

	mu     sync.RWMutex
	tables []interface{ noticed(topic string) }

	skipped sync.Map // records that Skip was told of, by name
}

// NewSet makes a Set without tables. The log is told of what cannot be read.
func NewSet(store state.Store, log *slog.Logger) *Set { return &Set{store: store, log: log} }

// Skip says in the log, once for each name, that a record cannot be read and is passed over.
func (s *Set) Skip(name string, err error) {
	if _, said := s.skipped.LoadOrStore(name, true); !said {
		s.log.Error("a record cannot be read, and is passed over", "record", name, "error", err)
	}
}

// Tx is a transaction that keeps its first error: what comes after it is for
// nothing, and the transaction fails with it.
type Tx struct {
	state.Tx
	Time time.Time // by the clock of the state

	ctx     context.Context
	err     error
	topics  []string
	written []func() // put into memory what was written
	before  []func() error
	after   []func(err error)
}

// Context is that of Update: it knows for whom the change is made.
func (x *Tx) Context() context.Context { return x.ctx }

// Before has fn called at the end of the transaction, if nothing has failed.
func (x *Tx) Before(fn func() error) { x.before = append(x.before, fn) }

// After has fn called when it is known what became of the transaction: nil, if it was
// committed. A transaction that runs again is one that failed, and another.
func (x *Tx) After(fn func(err error)) { x.after = append(x.after, fn) }

func (x *Tx) ended(err error) {
	for _, fn := range x.after {
		fn(err)
	}
}

var errAgain = errors.New("the transaction runs again")

// Keep keeps an error, if it is the first.
func (x *Tx) Keep(err error) {
	if x.err == nil {
		x.err = err
	}
}

// Notify implements state.Tx.
func (x *Tx) Notify(topics ...string) {
	x.topics = append(x.topics, topics...)
	x.Tx.Notify(topics...)
}

// Update is that of the state. When it returns, memory is not behind it.
func (s *Set) Update(ctx context.Context, locks []string, fn func(tx *Tx) error) error {
	last := new(Tx)
	err := s.store.Update(ctx, locks, func(t state.Tx) error {
		last.ended(errAgain)
		tx := &Tx{Tx: t, ctx: ctx}
		last = tx
		tx.Time, tx.err = t.Now()
		tx.Keep(fn(tx))
		for _, fn := range tx.before {
			if tx.err == nil {
				tx.err = fn()
			}
		}
		return tx.err
	})
	last.ended(err)
	if errors.Is(err, state.ErrUncertain) { // it may have been made
		s.Noticed(last.topics)
	}
	if err != nil {
		return err
	}
	for _, write := range last.written {
		write()
	}
	return nil
}

// View is that of the state.
func (s *Set) View(fn func(tx state.Reader) error) error {
	return s.store.View(context.Background(), fn)
}

// Merge is that of the state.
func (s *Set) Merge(ctx context.Context, bucket string, values map[string]uint64) error {
	return s.store.Merge(ctx, bucket, values)
}

// Scan is that of the state.
func (s *Set) Scan(bucket string, r state.Range, fn func(page []state.Entry) error) error {
	return s.store.Scan(context.Background(), bucket, r, fn)
}

// Noticed passes on which topics the state notified of.
func (s *Set) Noticed(topics []string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, t := range s.tables {
		for _, topic := range topics {
			t.noticed(topic)
		}
	}
}
