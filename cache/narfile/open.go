package narfile

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"

	"narwharf/cache/blob"
)

// Open opens a stored NAR file by its name "nar/…" and returns the NAR in it. It
// was verified when it came, so what is wrong with it now is our fault and no
// refusal.
func Open(blobs blob.Store, name string) (io.ReadCloser, error) {
	f, err := blobs.Open(name)
	if err != nil {
		return nil, err
	}
	buf := getBuffer(f.Content)
	_, plain, err := unpack(buf, strings.TrimPrefix(name, "nar/"))
	if err != nil {
		putBuffer(buf)
		f.Close()
		return nil, errors.New("read " + name + ": " + err.Error())
	}
	return &opened{plain, buf, f}, nil
}

type opened struct {
	io.ReadCloser
	buf  *bufio.Reader
	file io.Closer
}

func (o *opened) Close() error {
	o.ReadCloser.Close()
	putBuffer(o.buf)
	return o.file.Close()
}

// WithContext returns a reader of r that ends with its context.
func WithContext(ctx context.Context, r io.Reader) io.Reader { return contextReader{ctx, r} }

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
