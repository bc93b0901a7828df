package compress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// alone is an encode for one reader, of which nothing is stored.
type alone struct {
	job
	s      *Store
	r      *io.PipeReader
	w      *io.PipeWriter
	cancel context.CancelCauseFunc
}

// goAlone has the stream go on with an encode of its own.
func (st *Stream) goAlone(cause error) error {
	if err := st.ended(); err != nil {
		return err
	}
	st.letGo() // a full disk has the more room
	s := st.s
	a, from := &alone{s: s}, st.off
	a.r, a.w = io.Pipe()
	ctx, cancel := context.WithCancelCause(s.ctx)
	a.cancel = cancel
	// However long the reader lets it wait, it ends with the store.
	context.AfterFunc(ctx, func() { a.w.CloseWithError(context.Cause(ctx)) })
	a.job = job{
		abandon: cancel,
		run: func() {
			digest, err := encode(ctx, st.key, st.src, &skip{w: a.w, n: from})
			if err == nil {
				s.learn(st.key, digest)
			}
			if errors.Is(err, io.ErrClosedPipe) {
				err = fmt.Errorf("its reader left: %w", fs.ErrClosed)
			}
			a.w.CloseWithError(err) // the first error counts
			s.count(st.name, err)
			cancel(nil)
		},
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.gone || s.closed {
		cancel(fs.ErrClosed)
		return ErrClosed // unless the stream knows better
	}
	st.alone = a
	s.m.alone.Inc()
	s.log.Debug("a download goes on with an encode of its own", "nar", st.name, "at", from, "error", cause)
	s.enqueue(&a.job, &s.live)
	s.hand()
	return nil
}

func (a *alone) stop() {
	a.cancel(fs.ErrClosed)
	_ = a.r.Close() // the writer's writes fail now; never an error
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	a.s.dequeue(&a.job)
}

// skip drops the first n bytes.
type skip struct {
	w io.Writer
	n int64
}

func (s *skip) Write(p []byte) (int, error) {
	drop := min(s.n, int64(len(p)))
	s.n -= drop
	if drop == int64(len(p)) {
		return len(p), nil
	}
	n, err := s.w.Write(p[drop:])
	return int(drop) + n, err
}
