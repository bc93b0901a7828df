package compress

import (
	"context"
	"errors"
	"syscall"

	"narwharf/cache/local/encoder"
	"narwharf/narinfo"
)

var (
	// ErrBusy is what Ahead returns while encoders are at work, or once one is wanted.
	ErrBusy = errors.New("somebody waits for an encoder, or has one")
	// ErrNoRoom is what Ahead returns where another NAR would have to go.
	ErrNoRoom = errors.New("no room for what nobody has asked for")
)

// Ahead packs a NAR of size bytes that nobody has asked for, in the caller's goroutine and
// while no encoder is at work. It breaks off once one is wanted. What is packed is not packed again. After an
// error nothing is kept; those that are neither ErrBusy nor ErrNoRoom are of the NAR, of the disk, ctx's, or ErrClosed.
func (s *Store) Ahead(ctx context.Context, key narinfo.Hash, size int64, src encoder.Source) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e, err := s.beginAhead(key, size, src)
	if e == nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { e.cancel(context.Cause(ctx)) })
	defer stop()
	e.encode()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead = nil
	s.running.Done()
	switch {
	case errors.Is(e.err, errYielded):
		return ErrBusy
	case e.err == nil && s.stored[key] == nil:
		return ErrNotStored
	}
	return e.err
}

// beginAhead returns nil, nil for what is packed already.
func (s *Store) beginAhead(key narinfo.Hash, size int64, src encoder.Source) (*encoding, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &st); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, ErrClosed
	case s.stored[key] != nil:
		return nil, nil
	case s.ahead != nil, s.working > 0, s.queue.Len() > 0:
		return nil, ErrBusy
	case s.bytes+size > s.limit, int64(st.Bavail)*int64(st.Bsize)-size < s.reserve:
		return nil, ErrNoRoom
	}
	e := &encoding{tailFile: newTailFile(), s: s, key: key, src: src}
	e.ctx, e.cancel = context.WithCancelCause(s.ctx)
	s.ahead = e
	s.running.Add(1) // Close waits for it
	return e, nil
}
