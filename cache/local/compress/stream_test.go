package compress

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"narwharf/cache/local/encoder"
)

func TestOneEncodeForManyReaders(t *testing.T) {
	const readers = 50
	w := newWorld(t, Options{})
	i := newItem(1<<20, 1)
	g := newGate()
	if _, known := w.Digest(i.key); known {
		t.Error("facts of what was never encoded")
	}
	var all sync.WaitGroup
	for n := range readers {
		st := w.join(i, i.gated(g))
		all.Go(func() {
			var got []byte
			var err error
			if n%2 == 0 {
				got, err = io.ReadAll(st)
			} else {
				var b bytes.Buffer
				var size int64
				size, err = io.Copy(&b, st)
				if got = b.Bytes(); size != int64(len(got)) {
					t.Errorf("Copy says %d of %d bytes", size, len(got))
				}
			}
			if err != nil {
				t.Error(err)
			}
			w.same(got, i)
			f, digest, err := st.File(t.Context())
			if err != nil || digest != i.digest(t) {
				t.Error(digest, err)
				return
			}
			f.Close()
			if n, err := st.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				t.Error("behind the end:", n, err)
			}
		})
	}
	<-g.started
	g.steps <- 600 << 10
	close(g.steps)
	all.Wait()
	if n := i.runs.Load(); n != 1 {
		t.Errorf("%d encodes", n)
	}
	if n := w.metric("joined_total"); n != readers-1 {
		t.Errorf("%d joined", n)
	}
	if w.result(resultOK) != 1 || !w.has(i) {
		t.Error("it is not kept")
	}
	w.fetch(i) // from the file
	if n := i.runs.Load(); n != 1 {
		t.Errorf("%d encodes", n)
	}
}

// Bytes come while the NAR is still being encoded, and who joins late gets
// the same ones from the first on.
func TestLateJoiner(t *testing.T) {
	w := newWorld(t, Options{})
	i := newItem(2<<20, 1)
	g := newGate()
	early := w.join(i, i.gated(g))
	g.steps <- 1 << 20
	first := make([]byte, 200<<10)
	if _, err := io.ReadFull(early, first); err != nil {
		t.Fatal(err)
	}
	if early.tail.over() {
		t.Fatal("it is over")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, _, err := early.File(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a file before the end: %v", err)
	}
	if _, _, err := w.Open(i.key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opened half: %v", err)
	}
	late := w.join(i, i.source)
	again := make([]byte, len(first))
	if _, err := io.ReadFull(late, again); err != nil || !bytes.Equal(first, again) {
		t.Fatal("other bytes", err)
	}
	close(g.steps)
	for _, st := range []*Stream{early, late} {
		rest, err := io.ReadAll(st)
		if err != nil {
			t.Fatal(err)
		}
		w.same(append(bytes.Clone(first), rest...), i)
	}
	if i.runs.Load() != 1 {
		t.Error("encoded twice")
	}
}

func TestStreamFile(t *testing.T) {
	w := newWorld(t, Options{})
	i := newItem(100<<10, 1)
	g := newGate()
	st := w.join(i, i.gated(g))
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(io.ErrNoProgress)
	if _, _, err := st.File(ctx); !errors.Is(err, io.ErrNoProgress) {
		t.Error(err)
	}
	close(g.steps)
	f, digest, err := st.File(context.Background())
	if err != nil || digest != i.digest(t) {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	w.same(got, i)
	// A file of its own: the stream is still at the start.
	if got, err = io.ReadAll(st); err != nil {
		t.Fatal(err)
	}
	w.same(got, i)
}

func TestTheLastToLeaveBreaksItOff(t *testing.T) {
	w := newWorld(t, Options{})
	w.linger = 0
	i := newItem(1<<20, 1)
	g := newGate()
	a, b := w.join(i, i.gated(g)), w.join(i, i.gated(g))
	<-g.started
	a.Close()
	a.Close()
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
	g.steps <- 400 << 10 // it goes on for b
	if _, err := io.ReadFull(b, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	b.Close()
	eventually(t, "the encode ends", func() bool { return w.result(resultCancelled) == 1 })
	eventually(t, "nothing is left", func() bool { return len(w.files(newSuffix)) == 0 && w.metric("live") == 0 })
	if w.metric("bytes") != 0 || w.has(i) {
		t.Error("something is kept")
	}
	w.fetch(i)
}

func TestALingeringEncodeIsJoined(t *testing.T) {
	w := newWorld(t, Options{})
	w.linger = 1 << 40
	i := newItem(1<<20, 1)
	g := newGate()
	a := w.join(i, i.gated(g))
	<-g.started
	a.Close()
	b := w.join(i, i.source)
	close(g.steps)
	got, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	w.same(got, i)
	if i.runs.Load() != 1 {
		t.Error("encoded twice")
	}
}

// An encode without readers that comes to its end before the linger is over is
// kept.
func TestALingeringEncodeThatEndsIsKept(t *testing.T) {
	w := newWorld(t, Options{})
	w.linger = 1 << 40
	i := newItem(1000, 1)
	g := newGate()
	a := w.join(i, i.gated(g))
	<-g.started
	a.Close()
	close(g.steps)
	<-a.tail.done
	if !w.has(i) {
		t.Error("not kept")
	}
}

func TestContextEndsAStream(t *testing.T) {
	w := newWorld(t, Options{})
	w.linger = 0
	i := newItem(1<<20, 1)
	g := newGate()
	ctx, cancel := context.WithCancelCause(context.Background())
	st := w.joinAs(ctx, i, i.gated(g))
	<-g.started
	read := make(chan error)
	go func() {
		_, err := io.Copy(io.Discard, st)
		read <- err
	}()
	cancel(io.ErrNoProgress)
	if err := <-read; !errors.Is(err, io.ErrNoProgress) {
		t.Error(err)
	}
	eventually(t, "the encode ends, though nobody called Close", func() bool { return w.result(resultCancelled) == 1 })
}

// Nobody gets the end of what is no NAR, nothing of it is kept, and the next
// one who asks has it tried anew.
func TestBadSources(t *testing.T) {
	good := newItem(1<<20, 1)
	other := newItem(1<<20, 2)
	for name, c := range map[string]struct {
		change func(*item, *gate)
		is     error
		result string
	}{
		"breaks off":         {func(_ *item, g *gate) { g.end = io.ErrUnexpectedEOF }, encoder.ErrSource, resultSource},
		"another nar":        {func(i *item, _ *gate) { i.bytes = other.bytes }, encoder.ErrWrongNAR, resultHash},
		"last byte differs":  {func(i *item, _ *gate) { i.bytes[len(i.bytes)-1] ^= 1 }, encoder.ErrWrongNAR, resultHash},
		"one byte too many":  {func(i *item, _ *gate) { i.bytes = append(i.bytes, 0) }, encoder.ErrWrongNAR, resultHash},
		"one byte too few":   {func(i *item, _ *gate) { i.bytes = i.bytes[:len(i.bytes)-1] }, encoder.ErrWrongNAR, resultHash},
		"nothing whatsoever": {func(i *item, _ *gate) { i.bytes = nil }, encoder.ErrWrongNAR, resultHash},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Options{})
			bad := &item{key: good.key, bytes: bytes.Clone(good.bytes)}
			g := newGate()
			c.change(bad, g)
			var all sync.WaitGroup
			for range 10 {
				st := w.join(bad, bad.gated(g))
				all.Go(func() {
					got, err := io.ReadAll(st)
					if !errors.Is(err, c.is) || !strings.Contains(err.Error(), good.key.Base32()) {
						t.Errorf("%v", err)
					}
					if len(got) >= len(good.packed(t)) && len(bad.bytes) <= len(good.bytes) {
						t.Errorf("%d bytes were seen", len(got))
					}
					d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
					if err != nil {
						t.Error(err)
						return
					}
					defer d.Close()
					if _, err := d.DecodeAll(got, nil); len(got) > 0 && err == nil {
						t.Error("what was seen passes for whole")
					}
					if _, _, err := st.File(context.Background()); !errors.Is(err, c.is) {
						t.Error(err)
					}
				})
			}
			<-g.started
			g.steps <- 500 << 10
			close(g.steps)
			all.Wait()
			if n := w.result(c.result); n != 1 {
				t.Errorf("%d counted as %s", n, c.result)
			}
			if _, known := w.Digest(good.key); known || w.metric("bytes") != 0 || len(w.files(suffix)) != 0 {
				t.Error("something is kept")
			}
			eventually(t, "the temporary file goes", func() bool { return len(w.files(newSuffix)) == 0 })
			w.fetch(good)
		})
	}
}

func TestCloseEndsReaders(t *testing.T) {
	w := newWorld(t, Options{Encoders: 1})
	i, queued, done := newItem(1<<20, 1), newItem(1000, 2), newItem(1000, 3)
	w.fetch(done)
	whole := w.join(done, done.source)
	g := newGate()
	a, b := w.join(i, i.gated(g)), w.join(queued, queued.source)
	<-g.started
	g.steps <- 500 << 10
	w.close()
	for _, st := range []*Stream{a, b} {
		if _, err := io.ReadAll(st); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		st.Close()
	}
	if got, err := io.ReadAll(whole); err != nil {
		t.Error(err)
	} else {
		w.same(got, done)
	}
	if _, err := w.Join(context.Background(), i.key, i.source); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, _, err := w.Open(done.key); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if queued.runs.Load() != 0 || len(w.files(newSuffix)) != 0 {
		t.Error("it went on")
	}
}
