package encoder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"narwharf/narinfo"
)

// What the encoder makes of sample(n). A change means that the URLs of local
// store paths have other bytes than those that clients may have a part of, and
// that Hash in narinfos they remember is wrong: go back to the encoder that
// made these, or change suffix and generation.
var golden = map[int]string{
	1:         "41cd976d2ad91b6f4777fb5c5e4de3380d5382b9a2ed6f243560390638df1776",
	112:       "680008a21013f4f0f5787e56e59867557d3656191fa423cc6e8d6131ed401064",
	131071:    "5991a24e13710b0264b373448197073e455e1d138cafd09520550ad18ffa3dae", // around one block
	131072:    "d1215c580bf77563c19294a028fc129543e9a55e5a827af11de49ee5f4c1b9a1",
	131073:    "5749c153079640cb22e06b6194ff18fe6f05578c6e4aca72a1dfdda99ab89b54",
	900_000:   "d16f8d6aa5d235759420346023d87d9d5f63af9e04983137aaacfea5658d6435",
	9_437_197: "d4dc37f87dcc539f5d7d91d7627d2c75e9025dc7a40c27603edb4f38f1820886", // more than two windows
}

// sample is n bytes of all kinds: repetitive, text-like, random, zeros.
func sample(n int) []byte {
	b := pseudo(n, 7)
	r := rand.NewPCG(3, 9)
	for i := n / 4; i < n/2; i++ {
		b[i] = byte(r.Uint64())
	}
	clear(b[n/2 : n/2+n/8])
	copy(b[n/2+n/8:], b[:n/8]) // far back, beyond the window if n is large
	return b
}

// pieces is a source that writes in pieces of the size that next returns.
func pieces(b []byte, next func() int) Source {
	return func(_ context.Context, w io.Writer) error {
		for rest := b; len(rest) > 0; {
			n := min(next(), len(rest))
			if _, err := w.Write(rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	}
}

func encoded(t *testing.T, b []byte, next func() int) []byte {
	t.Helper()
	var out bytes.Buffer
	digest, err := Encode(context.Background(), sha256.Sum256(b), pieces(b, next), &out)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Digest{Hash: sha256.Sum256(out.Bytes()), Size: int64(out.Len())}); digest != want {
		t.Fatalf("facts %v of %v", digest, want)
	}
	return out.Bytes()
}

func TestTheBytesOfAURLNeverChange(t *testing.T) {
	for _, procs := range []int{1, 4} {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
		for size, want := range golden {
			b := sample(size)
			random := rand.New(rand.NewPCG(1, 2))
			for name, next := range map[string]func() int{
				"whole":  func() int { return size + 1 },
				"blocks": func() int { return 128 << 10 },
				"odd":    func() int { return 4097 },
				"words":  func() int { return 8 },
				"random": func() int { return random.IntN(300 << 10) },
			} {
				if size > 1<<20 && name != map[int]string{1: "odd", 4: "random"}[procs] {
					continue // for time's sake
				}
				// Some of these encoders are new, some were used before.
				out := encoded(t, b, next)
				sum := sha256.Sum256(out)
				if got := hex.EncodeToString(sum[:]); got != want {
					t.Errorf("%d bytes, %s, %d processors: became %d bytes, %s", size, name, procs, len(out), got)
				}
				d, err := zstd.NewReader(bytes.NewReader(out), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(window))
				if err != nil {
					t.Fatal(err)
				}
				if back, err := io.ReadAll(d); err != nil || !bytes.Equal(back, b) {
					t.Errorf("%d bytes, %s: does not decode: %v", size, name, err)
				}
				d.Close()
			}
		}
	}
}

// Encodes of different NARs at the same time, with encoders that go around and
// some that were broken off in the middle, make the same bytes as alone.
func TestEncodersAreUsedAgain(t *testing.T) {
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			b := pseudo(300<<10+n*77777, uint64(n))
			first := encoded(t, b, func() int { return 1 << 20 })
			for range 5 {
				broken := func(_ context.Context, w io.Writer) error {
					_, err := w.Write(b[:200<<10])
					return errors.Join(err, io.ErrUnexpectedEOF)
				}
				if _, err := Encode(context.Background(), sha256.Sum256(b), broken, io.Discard); !errors.Is(err, ErrSource) {
					t.Error(err)
				}
				if !bytes.Equal(encoded(t, b, func() int { return 50 << 10 }), first) {
					t.Error("other bytes")
				}
			}
		})
	}
	all.Wait()
}

func TestEncodeFails(t *testing.T) {
	b := sample(1 << 20)
	want := narinfo.Hash(sha256.Sum256(b))
	whole := pieces(b, func() int { return 100_000 })
	cancelled, cancel := context.WithCancelCause(context.Background())
	cancel(io.ErrNoProgress)
	full := errors.New("no room")
	for name, c := range map[string]struct {
		ctx  context.Context
		src  Source
		sink io.Writer
		is   error
		says string
	}{
		"source": {src: func(_ context.Context, w io.Writer) error {
			if _, err := w.Write(b); err != nil {
				return err
			}
			return io.ErrNoProgress
		}, is: io.ErrNoProgress, says: "read the store path"},
		"short": {src: pieces(b[:len(b)-1], func() int { return 1 << 20 }), is: ErrWrongNAR, says: "1048575 bytes"},
		"empty": {src: func(context.Context, io.Writer) error { return nil }, is: ErrWrongNAR},
		"one bit": {src: func(ctx context.Context, w io.Writer) error {
			other := bytes.Clone(b)
			other[5000] ^= 1
			return pieces(other, func() int { return 1 << 20 })(ctx, w)
		}, is: ErrWrongNAR},
		"panic":     {src: func(context.Context, io.Writer) error { panic("boom") }, is: ErrSource, says: "boom"},
		"cancelled": {ctx: cancelled, src: whole, is: io.ErrNoProgress},
		"sink":      {src: whole, sink: &brittle{after: 1000, err: full}, is: full},
		"sink at the end": {src: whole, sink: &brittle{after: int64(len(encoded(t, b, func() int { return 1 << 20 }))) - 1, err: full},
			is: full},
		"sink, and the source hides it": {src: func(ctx context.Context, w io.Writer) error {
			_ = whole(ctx, w)
			return errors.New("something else")
		}, sink: &brittle{err: full}, is: full},
	} {
		t.Run(name, func(t *testing.T) {
			if c.ctx == nil {
				c.ctx = context.Background()
			}
			var out bytes.Buffer
			if c.sink == nil {
				c.sink = &out
			}
			_, err := Encode(c.ctx, want, c.src, c.sink)
			if !errors.Is(err, c.is) || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Fatalf("%v", err)
			}
			if sink := (*SinkError)(nil); errors.As(err, &sink) != errors.Is(c.is, full) {
				t.Errorf("whose fault is %v?", err)
			}
			// Whatever came out so far is no zstd frame.
			d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if _, err := d.DecodeAll(out.Bytes(), nil); out.Len() > 0 && err == nil {
				t.Error("what came out passes for whole")
			}
			if !bytes.Equal(encoded(t, b, func() int { return 1 << 20 }), encoded(t, b, func() int { return 1 << 17 })) {
				t.Error("the encoder that failed is spoilt")
			}
		})
	}
}

// brittle fails once it has got more than so many bytes.
type brittle struct {
	after int64
	err   error
}

func (b *brittle) Write(p []byte) (int, error) {
	if b.after -= int64(len(p)); b.after < 0 {
		return 0, b.err
	}
	return len(p), nil
}

func TestTailHoldsBack(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var in, out bytes.Buffer
	w := &holdBack{w: &out, sum: sha256.New()}
	for range 3000 {
		p := pseudo(r.IntN(heldBack), r.Uint64())
		if r.IntN(10) == 0 {
			p = pseudo(r.IntN(5*heldBack), 2)
		}
		in.Write(p)
		if n, err := w.Write(p); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
		if want := max(0, in.Len()-heldBack); out.Len() != want {
			t.Fatalf("%d of %d bytes are out", out.Len(), in.Len())
		}
	}
	if err := w.end(); err != nil || !bytes.Equal(in.Bytes(), out.Bytes()) || w.n != int64(in.Len()) {
		t.Error(err)
	}
}

// The heap of a live encoder is what the documentation of window says.
func TestMemoryOfAnEncoder(t *testing.T) {
	heap := func() int64 {
		runtime.GC()
		runtime.GC() // the second empties the pool of encoders
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	var during int64
	zeros := make([]byte, 1<<20)
	_, err := Encode(context.Background(), narinfo.Hash{}, func(_ context.Context, w io.Writer) error {
		for range 64 {
			if _, err := w.Write(zeros); err != nil {
				return err
			}
		}
		during = heap()
		return nil
	}, io.Discard)
	if !errors.Is(err, ErrWrongNAR) {
		t.Fatal(err)
	}
	if used := during - before; used > 12<<20 {
		t.Errorf("%d bytes", used)
	}
}

// pseudo is the same bytes in every version of Go: of the random package it
// takes only the generator, whose numbers are documented.
func pseudo(size int, seed uint64) []byte {
	r := rand.NewPCG(seed, 1)
	b := make([]byte, 0, size+64)
	for len(b) < size {
		x := r.Uint64()
		run := int(x>>60) + 1
		if x%4 > 0 && len(b) > 64 {
			from := int((x >> 8) % uint64(len(b)-32))
			b = append(b, b[from:from+8+run]...)
		} else {
			for y := r.Uint64(); run > 0; run-- {
				b = append(b, byte(y>>(run*3)))
			}
		}
	}
	return b[:size]
}
