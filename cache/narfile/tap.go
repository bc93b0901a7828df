package narfile

import (
	"crypto/sha256"
	"hash"
	"io"
	"sync"

	"narwharf/narinfo"
)

// inline is how many bytes of a stream are hashed by whoever reads it, before it is worth a goroutine.
const inline = 256 << 10

// pieceSize is that of the buffers, which are those of package nar. Larger ones gain nothing: in pieces of
// 1 MiB the page cache was seen to take five times the processor time of 128 KiB.
const pieceSize = 128 << 10

var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

func getPiece() []byte {
	p, ok := pieces.Get().(*[pieceSize]byte)
	if !ok {
		panic("the pool holds buffers only")
	}
	return p[:]
}

func putPiece(p []byte) {
	if len(p) == pieceSize {
		pieces.Put((*[pieceSize]byte)(p))
	}
}

// A tap takes the SHA-256 of a stream beside whoever reads it: of a longer one in a goroutine
// of its own, to which buffers are lent and from which they come back. It copies nothing. It
// implements nar.Tap. The reader calls close, which may be called again.
type tap struct {
	sum   hash.Hash
	size  int64
	work  chan lent // nil: no goroutine
	spare chan []byte
	done  chan struct{}
}

type lent struct{ piece, buf []byte }

// lentBuffers is how many buffers go round: one is read into, one waits, one is hashed.
const lentBuffers = 3

func newTap() *tap { return &tap{sum: sha256.New()} }

// Take implements nar.Tap.
func (t *tap) Take(piece, buf []byte) {
	if t.size += int64(len(piece)); t.size <= inline {
		t.sum.Write(piece)
		return
	}
	if t.work == nil {
		t.work, t.spare, t.done = make(chan lent, lentBuffers), make(chan []byte, lentBuffers), make(chan struct{})
		for range lentBuffers - 1 {
			t.spare <- getPiece()
		}
		go t.run()
	}
	t.work <- lent{piece, buf}
}

func (t *tap) run() {
	defer close(t.done)
	for l := range t.work {
		t.sum.Write(l.piece)
		t.spare <- l.buf // as many as there are fit
	}
}

// Next implements nar.Tap.
func (t *tap) Next() []byte {
	if t.work == nil {
		return nil
	}
	return <-t.spare
}

// close ends the goroutine. The reader has asked for Next by then, so that all spare buffers are free.
func (t *tap) close() {
	if t.work == nil {
		return
	}
	close(t.work)
	<-t.done
	t.work = nil
	for len(t.spare) > 0 {
		putPiece(<-t.spare)
	}
}

// hash is that of all that was taken; nothing may be taken any more.
func (t *tap) hash() (h narinfo.Hash) {
	t.close()
	t.sum.Sum(h[:0])
	return h
}

// tapped reads a file whose bytes go to a tap, too.
type tapped struct {
	src  io.Reader
	tap  *tap
	buf  []byte
	rest []byte // of buf, not read yet
	lent bool   // buf is
	err  error
}

func newTapped(src io.Reader) *tapped { return &tapped{src: src, tap: newTap(), buf: getPiece()} }

func (t *tapped) Read(p []byte) (int, error) {
	for len(t.rest) == 0 {
		if t.err != nil {
			return 0, t.err
		}
		t.regain()
		var n int
		n, t.err = t.src.Read(t.buf)
		if t.lent = n > 0; t.lent {
			t.rest = t.buf[:n]
			t.tap.Take(t.rest, t.buf)
		}
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

// regain sees to it that buf may be written to.
func (t *tapped) regain() {
	if !t.lent {
		return
	}
	t.lent = false
	if next := t.tap.Next(); next != nil {
		t.buf = next
	}
}

// hash is that of all that was read.
func (t *tapped) hash() narinfo.Hash {
	t.regain()
	return t.tap.hash()
}

// close may be called after hash.
func (t *tapped) close() {
	t.regain()
	t.tap.close()
	putPiece(t.buf)
}
