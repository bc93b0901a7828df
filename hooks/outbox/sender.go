package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	most       = 64 // paths in one call
	look       = time.Second
	firstDelay = 5 * time.Second
	maxDelay   = 10 * time.Minute
)

// ErrAnother says that another sender works on the queue.
var ErrAnother = errors.New("another narwharf upload-hook run works on this queue")

// A Sender sends what is queued, until it is told to stop.
type Sender struct {
	Queue *Queue
	// Copy uploads paths with all that they need, and returns an error if any of them is not there then.
	Copy func(ctx context.Context, paths []string) error
	Log  *slog.Logger

	tries map[string]try
}

// A try is what became of a path so far.
type try struct {
	failed int
	next   time.Time
}

// Run sends until ctx ends. A path that cannot be sent is tried again, later each time, and keeps no other
// from being sent. One that is no longer in the store is dropped, in words.
func (s *Sender) Run(ctx context.Context) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s.tries = make(map[string]try)
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		if err := s.Once(ctx); err != nil {
			s.Log.Error("cannot work on the queue", "dir", s.Queue.Dir, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *Sender) lock() (unlock func(), err error) {
	if err := os.MkdirAll(s.Queue.Dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.Queue.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, ErrAnother
	}
	return func() { _ = f.Close() }, nil
}

// Once sends what is due now.
func (s *Sender) Once(ctx context.Context) error {
	if s.tries == nil {
		s.tries = make(map[string]try)
	}
	items, err := s.Queue.List()
	if err != nil {
		return err
	}
	now := time.Now()
	var due []string
	for _, it := range items {
		if _, err := os.Lstat(it.Path); errors.Is(err, os.ErrNotExist) {
			s.Log.Warn("it is no longer in the store, and is not sent", "path", it.Path)
			if err := s.Queue.Done(it.Path); err != nil {
				return err
			}
			continue
		}
		if !s.tries[it.Path].next.After(now) {
			due = append(due, it.Path)
		}
	}
	for len(due) > 0 && ctx.Err() == nil {
		n := min(most, len(due))
		if err := s.send(ctx, due[:n]); err != nil {
			return err
		}
		due = due[n:]
	}
	return nil
}

// send sends some at once, and if that fails each by itself: one of them may be the only one that is refused.
func (s *Sender) send(ctx context.Context, paths []string) error {
	err := s.Copy(ctx, paths)
	if err == nil {
		return s.done(paths)
	}
	if len(paths) > 1 && ctx.Err() == nil {
		for _, p := range paths {
			if err := s.send(ctx, []string{p}); err != nil {
				return err
			}
		}
		return nil
	}
	if ctx.Err() != nil {
		return nil
	}
	for _, p := range paths {
		t := s.tries[p]
		delay := min(firstDelay<<min(t.failed, 20), maxDelay)
		s.tries[p] = try{t.failed + 1, time.Now().Add(delay)}
		s.Log.Warn("not sent", "path", p, "tries", t.failed+1, "next_in", delay, "error", err)
		if err := s.Queue.Failed(p, fmt.Errorf("try %d, %s: %w", t.failed+1, time.Now().UTC().Format(time.RFC3339), err)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sender) done(paths []string) error {
	for _, p := range paths {
		if err := s.Queue.Done(p); err != nil {
			return err
		}
		delete(s.tries, p)
		s.Log.Info("sent", "path", p)
	}
	return nil
}
