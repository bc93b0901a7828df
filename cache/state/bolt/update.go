package bolt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"narwharf/cache/state"
)

// update is a call of Update that waits for its commit.
type update struct {
	ctx    context.Context
	fn     func(tx state.Tx) error
	topics []string
	done   chan error
	panic  any
	err    error // of fn, which wrote nothing
}

// Update implements state.Store.
func (s *Store) Update(ctx context.Context, _ []string, fn func(tx state.Tx) error) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.open.Done()
	u := &update{ctx: ctx, fn: fn, done: make(chan error, 1)}
	s.mu.Lock()
	s.queue = append(s.queue, u)
	if !s.writing {
		s.writing = true
		go s.write()
	}
	s.mu.Unlock()
	err := <-u.done
	if u.panic != nil {
		panic(u.panic)
	}
	return err
}

// write commits what is queued until nothing is.
func (s *Store) write() {
	for {
		s.mu.Lock()
		batch := s.queue
		s.queue = nil
		if len(batch) == 0 {
			s.writing = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		for len(batch) > 0 {
			batch = s.commit(batch)
		}
	}
}

// errNothing ends a transaction that wrote nothing without a sync.
var errNothing = errors.New("nothing was written")

// commit runs a batch in one transaction. One that fails by its own fault gets
// its error, and the rest is returned to go again without it.
func (s *Store) commit(batch []*update) (again []*update) {
	var failed *update
	ran, wrote := false, false
	err := s.db.Update(func(t *bbolt.Tx) error {
		if f := s.frozen(t); f != nil {
			return f
		}
		for _, u := range batch {
			x := &tx{t: t, clock: s.clock}
			if u.err = u.run(x); u.err != nil && x.wrote {
				failed = u
				return u.err
			}
			wrote = wrote || x.wrote
		}
		if ran = true; !wrote {
			return errNothing
		}
		return nil
	})
	if failed != nil {
		failed.done <- err
		return slices.DeleteFunc(batch, func(u *update) bool { return u == failed })
	}
	switch {
	case err == nil:
	case errors.Is(err, errNothing):
		err = nil
	case errors.As(err, new(*state.Frozen)):
	case ran: // bbolt does not say how far a failed commit came
		err = fmt.Errorf("%w: write to %s: %w", state.ErrUncertain, s.path, err)
	default:
		err = fmt.Errorf("write to %s: %w", s.path, err)
	}
	s.answer(batch, err)
	return nil
}

// answer tells watchers what was committed, and each of a batch how it ended.
func (s *Store) answer(batch []*update, err error) {
	var topics []string
	switch {
	case errors.Is(err, state.ErrUncertain):
		topics = []string{state.All} // it may have been
	case err == nil:
		for _, u := range batch {
			if u.err == nil {
				topics = append(topics, u.topics...)
			}
		}
	}
	s.watchers.Tell(topics)
	for _, u := range batch {
		u.done <- cmp.Or(err, u.err)
	}
}

// run calls the function of u, whose panic is the caller's.
func (u *update) run(t *tx) (err error) {
	if err := u.ctx.Err(); err != nil {
		return err
	}
	defer func() {
		if u.panic = recover(); u.panic != nil {
			err = fmt.Errorf("panic: %v", u.panic)
		}
	}()
	t.topics = &u.topics
	u.topics = nil
	if err := u.fn(t); err != nil {
		return err
	}
	return u.ctx.Err()
}
