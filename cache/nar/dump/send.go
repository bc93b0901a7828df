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
	ctx    context.Context
	w      io.Writer
	rf     io.ReaderFrom // w, if it may be faster at copying files
	faults *faults

	pos, from, to int64
	sent          int64
}

func newSender(ctx context.Context, w io.Writer, from, to int64, f *faults) *sender {
	s := &sender{ctx: ctx, w: w, from: from, to: to, faults: f}
	// a *os.File goes about it in steps of 32 KiB if it is a pipe
	if _, file := w.(*os.File); !file {
		s.rf, _ = w.(io.ReaderFrom)
	}
	return s
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
		b.render(s.faults)
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
	return s.write(p[lo:hi])
}

func (s *sender) write(p []byte) error {
	n, err := s.w.Write(p)
	s.sent += int64(n)
	if err == nil && n < len(p) {
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
	copyStep := s.copy
	if s.rf != nil {
		copyStep = s.readFrom
		if at > 0 {
			if _, err := f.file.Seek(at, io.SeekStart); err != nil {
				return f.fail(err)
			}
		}
	}
	for at < end {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		if err := s.faults.reading(f.in, f.name); err != nil {
			return f.fail(err)
		}
		n, err := copyStep(f, at, min(end-at, sendStep))
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

// readFrom leaves the copying to the writer, so that sendfile(2) can happen.
func (s *sender) readFrom(f *body, at, n int64) (int64, error) {
	done, err := s.rf.ReadFrom(&io.LimitedReader{R: f.file, N: n})
	s.sent += done
	if err == nil {
		return done, nil
	}
	// sendfile(2) does not say whether it was the file or the connection: ask the file
	broken := s.faults.reading(f.in, f.name)
	if broken == nil {
		var probe [1]byte
		_, broken = f.file.ReadAt(probe[:], at+done)
	}
	if broken != nil && broken != io.EOF {
		return done, f.fail(broken)
	}
	return done, err
}

// copies are buffers for large bodies to writers that are no io.ReaderFrom.
var copies = sync.Pool{New: func() any { return new([batchSize]byte) }}

// copy reads and writes in large pieces.
func (s *sender) copy(f *body, at, n int64) (done int64, err error) {
	buf := copies.Get().(*[batchSize]byte)
	defer copies.Put(buf)
	for done < n {
		m, err := f.file.ReadAt(buf[:min(n-done, batchSize)], at+done)
		if err != nil && err != io.EOF {
			return done, f.fail(err)
		}
		if m == 0 {
			break
		}
		if err := s.write(buf[:m]); err != nil {
			return done, err
		}
		done += int64(m)
	}
	return done, nil
}

func (f *body) fail(err error) error {
	var outer *os.PathError // its path is the name alone
	if errors.As(err, &outer) {
		err = outer.Err
	}
	return f.in.fail("read", f.name, err)
}
