// Package encoder compresses a NAR, with one setting for all time: the bytes depend
// on the NAR alone, so that a download can be resumed from another machine's or
// another year's. A test holds the hash of what it makes; a release that has to
// change it changes generation and Suffix.
//
// Nobody sees the end of a NAR that is not what it was said to be: its SHA-256 is
// known before the encoder is told to end the frame.
package encoder

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"runtime/debug"
	"sync"

	"github.com/klauspost/compress/zstd"

	"narwharf/narinfo"
)

// The names of the one setting, in lines of digests and in URLs. They change with the
// bytes that the encoder makes.
const (
	generation = "z1"
	Suffix     = ".nar.zst"
)

// Source writes one whole NAR to w. An error means that what it wrote is none.
// It stops soon after ctx is done or a write failed, does not use w once it has
// returned, may outlive the request that it came from, may be called several
// times, and at the same time as others.
type Source func(ctx context.Context, w io.Writer) error

// Digest is what is known of a compressed NAR.
type Digest struct {
	Hash narinfo.Hash // SHA-256 of the compressed bytes
	Size int64        // how many they are
}

// window is how far back the encoder looks, and with it the memory of a live
// encoder and of every client's decoder. Measured on 85 MB of libraries and
// 130 MB of Go sources, kept as a share of the NAR: 1 MiB 0.398 and 0.222 in
// 4.1 MiB of heap, 2 MiB 0.395 and 0.220 in 6.1, 4 MiB 0.392 and 0.217 in 10.1,
// 8 MiB 0.392 and 0.217 in 18.1. More than 4 MiB buys nothing.
const window = 4 << 20

// encoders are at rest between two encodes. As many are out as encodes are at
// work; the garbage collector takes those that nobody needs.
var encoders = sync.Pool{New: func() any {
	// Concurrency 1 encodes in the goroutine that writes: no goroutines to
	// leak, and for one stream as fast as 2. The bytes are the same.
	e, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(window), zstd.WithEncoderCRC(true), zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
}}

// heldBack is how many bytes of its output an encode keeps to itself until the
// NAR's hash is known to be right. The encoder alone would do: it cannot end the
// frame before it is told to.
const heldBack = 1 << 10

var (
	// ErrWrongNAR is in the error of an encode whose source wrote another NAR
	// than the name says: the store path was changed or damaged.
	ErrWrongNAR = errors.New("the store path is not what its nar hash says")

	// ErrSource is in the error of an encode whose source failed.
	ErrSource = errors.New("read the store path")
)

// SinkError is a failure of what takes the packed bytes, as opposed to one of
// the source.
type SinkError struct{ err error }

func (e *SinkError) Error() string { return e.err.Error() }
func (e *SinkError) Unwrap() error { return e.err }

// Encode packs what src writes into sink, and returns what it is. sink gets the
// last bytes only when the NAR has the hash want. An error of sink comes back as
// a *SinkError, whatever src made of it.
func Encode(ctx context.Context, want narinfo.Hash, src Source, sink io.Writer) (Digest, error) {
	enc, _ := encoders.Get().(*zstd.Encoder)
	out := &holdBack{w: sink, sum: sha256.New()}
	enc.Reset(out)
	defer func() {
		enc.Reset(nil) // forget the sink
		encoders.Put(enc)
	}()

	in := &narWriter{ctx: ctx, enc: enc, sum: sha256.New()}
	err := callSource(ctx, src, in)
	switch {
	case out.err != nil:
		return Digest{}, &SinkError{out.err}
	case ctx.Err() != nil:
		return Digest{}, context.Cause(ctx)
	case in.err != nil:
		return Digest{}, fmt.Errorf("encode: %w", in.err)
	case err != nil:
		return Digest{}, fmt.Errorf("%w: %w", ErrSource, err)
	}
	if got := narinfo.Hash(in.sum.Sum(nil)); got != want {
		return Digest{}, fmt.Errorf("%w: it is %s, %d bytes", ErrWrongNAR, got, in.n)
	}
	err = enc.Close()
	if err == nil {
		err = out.end()
	}
	if out.err != nil {
		return Digest{}, &SinkError{out.err}
	}
	if err != nil {
		return Digest{}, fmt.Errorf("encode: %w", err)
	}
	return Digest{Hash: narinfo.Hash(out.sum.Sum(nil)), Size: out.n}, nil
}

// callSource makes an error of a panic: it would end the whole server, since no
// handler's goroutine is below.
func callSource(ctx context.Context, src Source, w io.Writer) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return src(ctx, w)
}

// narWriter is what a source writes to.
type narWriter struct {
	ctx context.Context
	enc io.Writer
	sum hash.Hash
	n   int64
	err error // sticky
}

func (w *narWriter) Write(p []byte) (int, error) {
	if w.err == nil && w.ctx.Err() != nil {
		w.err = context.Cause(w.ctx)
	}
	if w.err != nil {
		return 0, w.err
	}
	w.sum.Write(p)
	w.n += int64(len(p))
	_, w.err = w.enc.Write(p)
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// holdBack passes on all but the last heldBack bytes, and hashes all of them.
type holdBack struct {
	w    io.Writer
	sum  hash.Hash
	n    int64 // bytes written to it
	held []byte
	err  error // sticky, of w
}

func (t *holdBack) Write(p []byte) (int, error) {
	if t.err != nil {
		return 0, t.err
	}
	t.sum.Write(p)
	t.n += int64(len(p))
	n := len(p)
	if over := len(t.held) + len(p) - heldBack; over > 0 {
		old := min(over, len(t.held))
		t.pass(t.held[:old])
		t.held = append(t.held[:0], t.held[old:]...)
		t.pass(p[:over-old])
		p = p[over-old:]
	}
	t.held = append(t.held, p...)
	if t.err != nil {
		return 0, t.err
	}
	return n, nil
}

func (t *holdBack) pass(p []byte) {
	if t.err == nil && len(p) > 0 {
		_, t.err = t.w.Write(p)
	}
}

func (t *holdBack) end() error {
	t.pass(t.held)
	t.held = nil
	return t.err
}
