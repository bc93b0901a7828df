package dump

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// sendStep is how much of a large body is sent between two looks at the context.
const sendStep = 16 << 20

// sender writes the bytes [from, to) of an archive, of which it is given all from pos on.
type sender struct {
	ctx context.Context
	w   io.Writer
	rf  io.ReaderFrom // w, if it is one that may be faster at copying files

	pos, from, to int64
	sent          int64
}

func newSender(ctx context.Context, w io.Writer, from, to int64) *sender {
	s := &sender{ctx: ctx, w: w, from: from, to: to}
	// a *os.File goes about it in steps of 32 KiB if it is a pipe
	if rf, ok := w.(io.ReaderFrom); ok {
		if _, file := w.(*os.File); !file {
			s.rf = rf
		}
	}
	if s.rf == nil {
		s.rf = copier{w}
	}
	return s
}

// copier copies in large pieces.
type copier struct{ io.Writer }

var copies = sync.Pool{New: func() any { return new([batchSize]byte) }}

// ReadFrom implements io.ReaderFrom.
func (c copier) ReadFrom(r io.Reader) (int64, error) {
	buf := copies.Get().(*[batchSize]byte)
	defer copies.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{c.Writer}, r, buf[:])
}

// batch sends what the batch stands for, and renders what did not fit.
func (s *sender) batch(b *batch) error {
	for {
		if err := s.rendered(b); err != nil {
			return err
		}
		if b.err != nil {
			return b.err
		}
		if b.done == len(b.steps) {
			return b.ended
		}
		b.sent()
		b.render()
	}
}

func (s *sender) rendered(b *batch) error {
	at := 0
	for i := range b.bodies {
		f := &b.bodies[i]
		if err := s.bytes(b.buf[at:f.at]); err != nil {
			return err
		}
		if err := s.body(f); err != nil {
			return err
		}
		at = f.at
	}
	return s.bytes(b.buf[at:])
}

// clip gives the part of the next n bytes that is asked for, and passes them.
func (s *sender) clip(n int64) (lo, hi int64) {
	lo, hi = min(max(s.from-s.pos, 0), n), max(min(s.to-s.pos, n), 0)
	s.pos += n
	return lo, max(lo, hi)
}

func (s *sender) bytes(p []byte) error {
	lo, hi := s.clip(int64(len(p)))
	if lo == hi {
		return nil
	}
	n, err := s.w.Write(p[lo:hi])
	s.sent += int64(n)
	if err == nil && int64(n) < hi-lo {
		err = io.ErrShortWrite
	}
	return err
}

// body sends a file that is open, and looks whether it is still as long as it was.
func (s *sender) body(f *body) error {
	at, end := s.clip(f.size)
	if at == end {
		return nil
	}
	if at > 0 {
		if _, err := f.file.Seek(at, io.SeekStart); err != nil {
			return f.fail(err)
		}
	}
	for at < end {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		if err := f.in.reading(f.name); err != nil {
			return f.fail(err)
		}
		n, err := s.copy(f, at, min(end-at, sendStep))
		if at += n; err != nil {
			return err
		}
		if n == 0 {
			break
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.file.Fd()), &st); err != nil {
		return f.fail(os.NewSyscallError("fstat", err))
	}
	switch {
	case st.Size > f.size:
		return f.fail(changed("it grew beyond its %d bytes", f.size))
	case st.Size < f.size || at < end:
		return f.fail(changed("it lost %d of its %d bytes", f.size-min(st.Size, at), f.size))
	}
	return nil
}

// copy leaves the copying to the writer, so that sendfile(2) can happen.
func (s *sender) copy(f *body, at, n int64) (int64, error) {
	done, err := s.rf.ReadFrom(&io.LimitedReader{R: f.file, N: n})
	s.sent += done
	if err == nil {
		return done, nil
	}
	// sendfile(2) does not say whether it was the file or the connection: ask the file
	broken := f.in.reading(f.name)
	if broken == nil {
		var probe [1]byte
		_, broken = f.file.ReadAt(probe[:], at+done)
	}
	if broken != nil && broken != io.EOF {
		return done, f.fail(broken)
	}
	return done, err
}

func (f *body) fail(err error) error {
	var outer *os.PathError // its path is the name alone
	if errors.As(err, &outer) {
		err = outer.Err
	}
	return f.in.fail("read", f.name, err)
}
