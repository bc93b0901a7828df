package pack

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
	a.job = job{
		abandon: func(err error) { a.w.CloseWithError(err) },
		run: func() {
			facts, err := encode(ctx, st.key, st.src, &skip{w: a.w, n: from})
			if err == nil {
				s.learn(st.key, facts)
			}
			a.w.CloseWithError(err)
			if errors.Is(err, io.ErrClosedPipe) {
				err = fmt.Errorf("its reader left: %w", fs.ErrClosed)
			}
			s.count(st.name, err)
			cancel(nil)
		},
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.gone {
		return fs.ErrClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
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
