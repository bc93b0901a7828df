package local

import (
	"context"
	"fmt"
	"io"

	"narwharf/cache/local/encoder"
	"narwharf/cache/nar/dump"
	"narwharf/narinfo"
)

// Dump returns a source of a path's NAR for an encoder.
func (s *Store) Dump(i *narinfo.Info) encoder.Source {
	return func(ctx context.Context, w io.Writer) error {
		// Without ReadFrom: an encoder's would depend on the pieces.
		n, err := dump.Write(ctx, struct{ io.Writer }{w}, s.RealPath(i.Path))
		if err == nil && n != i.NarSize {
			err = wrongSize(n, i.NarSize)
		}
		return err
	}
}

// Measure walks a path, opens none of its files, and returns where everything is
// in its NAR.
func (s *Store) Measure(ctx context.Context, i *narinfo.Info) (*dump.Tree, error) {
	tree, err := dump.Measure(ctx, s.RealPath(i.Path))
	if err == nil && tree.Size() != i.NarSize {
		err = wrongSize(tree.Size(), i.NarSize)
	}
	return tree, err
}

func wrongSize(is, should int64) error {
	return fmt.Errorf("%w: it makes a NAR of %d bytes and should make one of %d", dump.ErrChanged, is, should)
}

// WriteNAR writes a path's NAR to w. Unless it returns nil, w has not got all of it. Where w has
// ReadFrom, large files go through it.
func (s *Store) WriteNAR(ctx context.Context, w io.Writer, i *narinfo.Info) error {
	out := &exactly{w: w, left: i.NarSize}
	if _, err := dump.Write(ctx, out, s.RealPath(i.Path)); err != nil {
		return err
	}
	return out.end()
}

// WriteRange is WriteNAR of the bytes [from, to) of a path that was measured.
func (s *Store) WriteRange(ctx context.Context, w io.Writer, tree *dump.Tree, from, to int64) error {
	out := &exactly{w: w, left: to - from}
	if _, err := tree.WriteRange(ctx, out, from, to); err != nil {
		return err
	}
	return out.end()
}

// exactly passes on just as many bytes as were announced. The last ones are
// held back until all is known to be well: with its Content-Length complete a
// reply is complete, whatever happens then. A NAR does not end with a body, so
// what goes by ReadFrom is never the end.
type exactly struct {
	w    io.Writer
	left int64
	held []byte
}

const heldBytes = 8 // the last closing parenthesis needs no more

var errTooLong = fmt.Errorf("%w: it makes a longer NAR than it should", dump.ErrChanged)

func (e *exactly) Write(p []byte) (int, error) {
	if int64(len(p)) > e.left {
		return 0, errTooLong
	}
	e.left -= int64(len(p))
	whole := len(p)
	if near := heldBytes - e.left; near > 0 {
		n := min(int64(len(p)), near)
		e.held = append(e.held, p[int64(len(p))-n:]...)
		p = p[:int64(len(p))-n]
	}
	if len(p) > 0 {
		if _, err := e.w.Write(p); err != nil {
			return 0, err
		}
	}
	return whole, nil
}

// ReadFrom implements io.ReaderFrom for bodies, which so go out by sendfile, but
// for what has to be held back where a range ends in one.
func (e *exactly) ReadFrom(r io.Reader) (total int64, err error) {
	body, ok := r.(*io.LimitedReader)
	to, fast := e.w.(io.ReaderFrom)
	if !ok || !fast {
		return io.Copy(struct{ io.Writer }{e}, r)
	}
	if body.N > e.left {
		return 0, errTooLong
	}
	if limit := min(body.N, e.left-heldBytes); limit > 0 {
		total, err = to.ReadFrom(&io.LimitedReader{R: body.R, N: limit})
		e.left -= total
		body.N -= total
		if err != nil || total < limit {
			return total, err
		}
	}
	n, err := io.Copy(struct{ io.Writer }{e}, body)
	return total + n, err
}

func (e *exactly) end() error {
	if e.left > 0 {
		return fmt.Errorf("%w: %d bytes are missing at the end of its NAR", dump.ErrChanged, e.left)
	}
	_, err := e.w.Write(e.held)
	return err
}
