package compress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"narwharf/narinfo"
)

// Stream reads one packed NAR from its first byte while it is encoded. Reads
// must not overlap; everything else is safe for concurrent use.
//
// When the packed bytes cannot be stored or read back, Read and WriteTo go on
// with an encode of the stream's own at the same place, since the bytes are the
// same: it waits for an encoder like any other, holds it for as long as the
// reader takes, and stores nothing. Done, Result, Wait and File are about the
// shared encode, and say ErrNotStored then.
type Stream struct {
	s      *Store
	key    narinfo.Hash
	name   string
	src    Source
	ctx    context.Context
	unwait func() bool
	fl     *flight // nil if the file was there already
	g      *growing
	letGo  func() // of g, once
	left   chan struct{}

	off int64
	err error // sticky

	mu    sync.Mutex
	gone  bool
	alone *alone
}

// Join returns a stream of the packed NAR: of the encode that is under way, or
// of one that is begun with src, or of the file if there is one by now. It does
// not block but where Open does; reading waits for an encoder. When ctx ends the
// stream is as good as closed.
func (s *Store) Join(ctx context.Context, name string, src Source) (*Stream, error) {
	key, err := parseName(name)
	if err != nil {
		return nil, err
	}
	st := &Stream{s: s, key: key, name: name, src: src, ctx: ctx, left: make(chan struct{})}
	if err := s.join(st); err != nil {
		return nil, fmt.Errorf("packed nar %s: %w", name, err)
	}
	st.letGo = sync.OnceFunc(st.g.release)
	st.unwait = context.AfterFunc(ctx, st.leave)
	return st, nil
}

func (s *Store) join(st *Stream) error {
	for {
		f, digest, err := s.open(st.key)
		if err == nil {
			st.g = newGrowing()
			st.g.begin(f)
			st.g.retain()
			st.g.end(digest, nil)
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.mu.Lock()
		if s.kept[st.key] != nil {
			s.mu.Unlock()
			continue
		}
		defer s.mu.Unlock()
		if s.closed {
			return ErrClosed
		}
		fl := s.flights[st.key]
		if fl == nil {
			fl = s.newFlight(st.key, st.name, st.src)
			s.enqueue(&fl.job, &s.live)
		} else {
			s.m.joined.Inc()
			if fl.queue == &s.background {
				s.dequeue(&fl.job)
				s.enqueue(&fl.job, &s.live)
			}
		}
		if fl.timer != nil {
			fl.timer.Stop()
		}
		fl.readers++
		fl.retain()
		st.fl, st.g = fl, fl.growing
		s.hand()
		return nil
	}
}

// Start encodes a NAR that nobody waits for yet, if it is not there, and returns
// at once. It is done when encoders are idle, in the order of the calls, and
// gives way to those that somebody waits for; who Joins it meanwhile makes it
// one of these.
func (s *Store) Start(name string, src Source) error {
	key, err := parseName(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("packed nar %s: %w", name, ErrClosed)
	}
	if s.kept[key] != nil {
		return nil
	}
	if fl := s.flights[key]; fl != nil {
		fl.wanted = true
		return nil
	}
	fl := s.newFlight(key, name, src)
	fl.wanted = true
	s.enqueue(&fl.job, &s.background)
	s.hand()
	return nil
}

// leave is what Close and the end of ctx do.
func (st *Stream) leave() {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.gone {
		return
	}
	st.gone = true
	close(st.left)
	if st.alone != nil {
		st.alone.stop()
	}
	if st.fl != nil {
		st.s.leave(st.fl)
	}
	st.letGo()
}

// Close leaves the encode, which ends soon if nobody else reads it. It always
// returns nil.
func (st *Stream) Close() error {
	st.unwait()
	st.leave()
	return nil
}

// ended is why the stream cannot be read any more, if that is its user's doing.
func (st *Stream) ended() error {
	if st.ctx.Err() != nil {
		return context.Cause(st.ctx)
	}
	select {
	case <-st.left:
		return fs.ErrClosed
	default:
		return nil
	}
}

// fail makes an error sticky.
func (st *Stream) fail(err error) error {
	if e := st.ended(); e != nil && !errors.Is(err, io.EOF) {
		err = e
	}
	if !errors.Is(err, io.EOF) {
		err = fmt.Errorf("packed nar %s: %w", st.name, err)
	}
	st.err = err
	return err
}

// Read reads what is encoded so far, and waits if that is nothing. io.EOF means
// that the whole NAR was encoded and its hash was right. Any other error means
// that the bytes so far are no NAR, and that the client must not take them for
// one.
func (st *Stream) Read(p []byte) (int, error) {
	if st.err != nil {
		return 0, st.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	for st.alone == nil {
		n, err := st.next()
		if err != nil {
			return 0, st.fail(err)
		}
		if n == 0 { // on its own from here
			break
		}
		got, err := st.readAt(p[:min(n, int64(len(p)))])
		if got > 0 {
			st.off += int64(got)
			return got, nil
		}
		if st.ended() == nil {
			st.s.dropKey(st.key, err)
		}
		if err := st.goAlone(err); err != nil {
			return 0, st.fail(err)
		}
	}
	n, err := st.alone.r.Read(p)
	st.off += int64(n)
	if err != nil {
		err = st.fail(err)
	}
	return n, err
}

// next waits for bytes and returns how many there are; 0 if the stream goes on
// alone.
func (st *Stream) next() (int64, error) {
	ready, ended, err := st.g.wait(st.ctx, st.left, st.off)
	switch {
	case err != nil && ended && errors.Is(err, ErrNotStored):
		return 0, st.goAlone(err)
	case err != nil:
		return 0, err
	case ready > st.off:
		return ready - st.off, nil
	}
	return 0, io.EOF
}

func (st *Stream) readAt(p []byte) (int, error) {
	if err := st.s.hit("read"); err != nil {
		return 0, err
	}
	n, err := st.g.file.ReadAt(p, st.off)
	if n == 0 && err == nil {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// buffers are for copies out of the file.
var buffers = sync.Pool{New: func() any { return new([128 << 10]byte) }}

// WriteTo writes the rest of the packed NAR to w. A nil error means that it is
// whole.
func (st *Stream) WriteTo(w io.Writer) (total int64, err error) {
	buf, _ := buffers.Get().(*[128 << 10]byte)
	defer buffers.Put(buf)
	for {
		n, err := st.Read(buf[:])
		if n > 0 {
			m, werr := w.Write(buf[:n])
			total += int64(m)
			if werr != nil {
				return total, werr
			}
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// Done is closed when the shared encode ended, well or not.
func (st *Stream) Done() <-chan struct{} { return st.g.done }

// errUnderWay is what Result says too early.
var errUnderWay = errors.New("it is still being encoded")

// Result says how the shared encode ended, once Done is closed.
func (st *Stream) Result() (Digest, error) {
	if !st.g.over() {
		return Digest{}, fmt.Errorf("packed nar %s: %w", st.name, errUnderWay)
	}
	if st.g.err != nil {
		return Digest{}, fmt.Errorf("packed nar %s: %w", st.name, st.g.err)
	}
	return st.g.digest, nil
}

// Wait waits for the end of the shared encode and returns its Result.
func (st *Stream) Wait(ctx context.Context) (Digest, error) {
	select {
	case <-st.g.done:
		return st.Result()
	case <-ctx.Done():
		return Digest{}, context.Cause(ctx)
	case <-st.left:
		return Digest{}, fmt.Errorf("packed nar %s: %w", st.name, st.ended())
	}
}

// File opens the whole packed NAR as a file of the caller's own, once the shared
// encode ended well and before Close. Unlike Store.Open it does so even if the
// NAR was too large to be kept.
func (st *Stream) File() (*os.File, Digest, error) {
	digest, err := st.Result()
	if err != nil {
		return nil, Digest{}, err
	}
	f, err := st.g.reopen()
	if err != nil {
		return nil, Digest{}, fmt.Errorf("packed nar %s: %w", st.name, err)
	}
	return f, digest, nil
}
