package daemon

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	maxString = 1 << 20 // bytes; the longest that come are error messages
	maxList   = 1 << 20 // strings
)

// wire reads and writes what Nix's protocols are made of: numbers of eight
// bytes, little-endian, and strings, which are a number for the length, the
// bytes, and zeros up to a multiple of eight (src/libutil/serialise.cc). The
// first error stays; after it everything read is zero and nothing is written.
//
// go-nix has the same in pkg/wire. It allocates a kilobyte for each string and
// lets padding that is cut off or not zero pass.
type wire struct {
	r   *bufio.Reader
	w   *bufio.Writer
	err error
}

func newWire(rw io.ReadWriter) *wire {
	return &wire{r: bufio.NewReaderSize(rw, 16<<10), w: bufio.NewWriterSize(rw, 4<<10)}
}

func (x *wire) fail(err error) {
	if x.err == nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		x.err = err
	}
}

func (x *wire) number() uint64 {
	if x.err != nil {
		return 0
	}
	var b [8]byte
	if _, err := io.ReadFull(x.r, b[:]); err != nil {
		x.fail(err)
		return 0
	}
	return binary.LittleEndian.Uint64(b[:])
}

func (x *wire) text() string {
	n := x.number()
	if n > maxString {
		x.fail(fmt.Errorf("a string of %d bytes is more than the %d taken here", n, maxString))
	}
	if x.err != nil || n == 0 {
		return ""
	}
	b, err := x.bytes((n + 7) &^ 7)
	if err != nil {
		x.fail(err)
		return ""
	}
	for _, c := range b[n:] {
		if c != 0 {
			x.fail(errors.New("a string is padded with something else than zeros"))
			return ""
		}
	}
	return string(b[:n])
}

// bytes reads n bytes; memory is taken as they come if they are many.
func (x *wire) bytes(n uint64) ([]byte, error) {
	if n <= 4096 {
		b := make([]byte, n)
		_, err := io.ReadFull(x.r, b)
		return b, err
	}
	var b bytes.Buffer
	_, err := io.CopyN(&b, x.r, int64(n))
	return b.Bytes(), err
}

// texts reads a list of strings.
func (x *wire) texts() (all []string) {
	n := x.number()
	if n > maxList {
		x.fail(fmt.Errorf("a list of %d is longer than the %d taken here", n, maxList))
	}
	for ; n > 0 && x.err == nil; n-- {
		all = append(all, x.text())
	}
	return all
}

// What is put waits for the flush, which has the error of all writes.

func (x *wire) putNumber(n uint64) {
	_, _ = x.w.Write(binary.LittleEndian.AppendUint64(nil, n))
}

func (x *wire) putText(s string) {
	x.putNumber(uint64(len(s)))
	_, _ = x.w.WriteString(s)
	_, _ = x.w.Write(make([]byte, -len(s)&7))
}

func (x *wire) flush() {
	if x.err != nil {
		return
	}
	if err := x.w.Flush(); err != nil {
		x.fail(err)
	}
}
