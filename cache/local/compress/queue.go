package compress

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"narwharf/cache/local/encoder"
)

// job is something that needs an encoder.
type job struct {
	run     func()        // in a goroutine of its own, once there is an encoder for it
	place   *list.Element // in the queue, while it waits
	working bool
	pull    bool // its source is a network, so that it has an encoder and little work for it
}

// enqueue has a job wait for an encoder. mu is held.
func (s *Store) enqueue(j *job) {
	if s.ahead != nil {
		s.ahead.cancel(errYielded)
	}
	j.place = s.queue.PushBack(j)
	s.dispatch()
}

// dequeue takes a job out that need not be done. mu is held.
func (s *Store) dequeue(j *job) {
	if j.place != nil {
		s.queue.Remove(j.place)
		j.place = nil
	}
}

// maxPulls is how many encodes that pull are at work beside the others.
const maxPulls = 16

// next is the first job in the queue that there is an encoder for, nil if there is none.
// Pulls have encoders of their own. mu is held.
func (s *Store) next() *job {
	for e := s.queue.Front(); e != nil; e = e.Next() {
		j, _ := e.Value.(*job)
		if j.pull && s.pulling < maxPulls || !j.pull && s.working-s.pulling < s.encoders {
			return j
		}
	}
	return nil
}

// dispatch gives encoders to those who wait, in the order in which they came. While
// any waits, encodes that nobody reads end. mu is held.
func (s *Store) dispatch() {
	for j := s.next(); j != nil; j = s.next() {
		s.dequeue(j)
		j.working = true
		s.atWork(j, 1)
		s.running.Go(func() {
			j.run()
			s.mu.Lock()
			defer s.mu.Unlock()
			s.atWork(j, -1)
			s.dispatch()
		})
	}
	if s.queue.Len() > 0 {
		for _, e := range s.encodings {
			if e.working && e.readers == 0 {
				s.giveUp(e, errYielded)
			}
		}
	}
}

// atWork counts a job that begins or ends its work. mu is held.
func (s *Store) atWork(j *job, n int) {
	s.working += n
	if j.pull {
		s.pulling += n
	}
}

// fallback is an encode for one reader, of which nothing is stored.
type fallback struct {
	job
	*io.PipeReader
	cancel context.CancelCauseFunc
}

// fallBack has the stream go on with an encode of its own, from where it is.
func (st *Stream) fallBack(cause error) error {
	if st.ctx.Err() != nil {
		return context.Cause(st.ctx)
	}
	st.release() // a full disk has the more room
	s, from := st.s, st.off
	r, w := io.Pipe()
	ctx, cancel := context.WithCancelCause(s.ctx)
	f := &fallback{job: job{pull: st.pull}, PipeReader: r, cancel: cancel}
	// However long the reader lets it wait, it ends with the store.
	context.AfterFunc(ctx, func() { w.CloseWithError(context.Cause(ctx)) })
	f.run = func() {
		digest, err := encoder.Encode(ctx, st.key, st.src, w)
		if err == nil {
			s.learn(st.key, digest)
		}
		if errors.Is(err, io.ErrClosedPipe) {
			err = fmt.Errorf("its reader left: %w", fs.ErrClosed)
		}
		w.CloseWithError(err) // the first error counts
		s.count(st.key, err)
		cancel(nil)
	}
	if !st.start(f) {
		cancel(fs.ErrClosed)
		return ErrClosed // unless the stream knows better
	}
	s.log.Debug("a download goes on with an encode of its own", "nar", st.key.Base32(), "at", from, "error", cause)
	_, err := io.CopyN(io.Discard, r, from)
	return err
}

// start has an encode of the stream's own wait for an encoder.
func (st *Stream) start(f *fallback) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if st.gone || st.s.closed {
		return false
	}
	st.fallback = f
	st.s.m.fallbacks.Inc()
	st.s.enqueue(&f.job)
	return true
}

func (f *fallback) stop(s *Store) {
	f.cancel(fs.ErrClosed)
	_ = f.Close() // the writer's writes fail now; never an error
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dequeue(&f.job)
}
