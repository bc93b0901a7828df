package diskcache

import (
	"errors"
	"io"
	"os"

	"narwharf/cache/blob"
)

// Spool is a file that is written here on its way elsewhere. It may stay as a copy.
type Spool struct {
	c    *Cache
	w    blob.Writer
	read *os.File
	name string
	size int64
}

// Spool begins a file that will have size bytes, -1 if unknown. Copies make way for it.
func (c *Cache) Spool(name string, size int64) (*Spool, error) {
	if size < c.Limit { // else it is refused by its size
		c.room(max(size, 1<<20))
	}
	w, err := c.files.Create(name, size)
	if err != nil {
		return nil, err
	}
	s := &Spool{c: c, w: w, name: name}
	o, ok := w.(interface{ Open() (*os.File, error) })
	if !ok {
		err = errors.ErrUnsupported
	} else {
		s.read, err = o.Open()
	}
	if err != nil {
		w.Abort()
		return nil, err
	}
	return s, nil
}

// Write implements io.Writer.
func (s *Spool) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.size += int64(n)
	return n, err
}

// Size is how many bytes were written.
func (s *Spool) Size() int64 { return s.size }

// Part reads size bytes from an offset on.
func (s *Spool) Part(offset, size int64) *io.SectionReader {
	return io.NewSectionReader(s.read, offset, size)
}

// Keep makes the file a copy, if it is small enough to be one.
func (s *Spool) Keep() {
	if s.size <= s.c.Limit/2 {
		s.c.keep(s.name, s.size, s.w)
	}
	s.Abort()
}

// Abort drops the file, unless it was kept. It may be called again.
func (s *Spool) Abort() {
	s.w.Abort()
	s.read.Close()
}
