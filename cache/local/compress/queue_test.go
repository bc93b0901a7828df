package compress

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
)

// Who comes first is served first, and no more encodes than allowed are at work.
func TestQueue(t *testing.T) {
	const encodes, encoders = 12, 3
	w := newWorld(t, Options{Encoders: encoders})
	var working, most atomic.Int64
	order := make(chan int, encodes)
	proceed := make(chan struct{})
	var streams []*Stream
	for n := range encodes {
		i := newItem(1000, uint64(n))
		streams = append(streams, w.join(i, func(ctx context.Context, out io.Writer) error {
			most.Store(max(most.Load(), working.Add(1)))
			defer working.Add(-1)
			order <- n
			<-proceed
			return i.source(ctx, out)
		}))
	}
	for range encoders {
		<-order // these began at once, in whatever order they came to run
	}
	if n := w.metric("queued"); n != encodes-encoders {
		t.Errorf("%d queued", n)
	}
	if n := w.metric("live"); n != encoders {
		t.Errorf("%d live", n)
	}
	for n := encoders; n < encodes; n++ {
		proceed <- struct{}{}
		if got := <-order; got != n {
			t.Errorf("number %d began in place of number %d", got, n)
		}
	}
	close(proceed)
	for _, st := range streams {
		if _, err := io.Copy(io.Discard, st); err != nil {
			t.Error(err)
		}
	}
	if most.Load() > encoders {
		t.Errorf("%d encodes at once", most.Load())
	}
}

func TestLeavingTheQueue(t *testing.T) {
	w := newWorld(t, Options{Encoders: 1})
	a, b, c := newItem(1000, 1), newItem(1000, 2), newItem(1000, 3)
	g := newGate()
	first := w.join(a, a.gated(g))
	<-g.started
	ctx, cancel := context.WithCancel(context.Background())
	waits := w.joinAs(ctx, b, b.source)
	stays := w.join(c, c.source)
	cancel()
	if _, err := waits.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	eventually(t, "it leaves the queue", func() bool { return w.metric("queued") == 1 })
	close(g.steps)
	for _, st := range []*Stream{first, stays} {
		if _, err := io.Copy(io.Discard, st); err != nil {
			t.Error(err)
		}
	}
	if b.runs.Load() != 0 {
		t.Error("it was encoded for nobody")
	}
	w.fetch(b)
}

// An encode whose last reader left a moment ago makes way at once.
func TestLingeringMakesWay(t *testing.T) {
	w := newWorld(t, Options{Encoders: 1})
	w.linger = 1 << 40
	a, b, c := newItem(1000, 1), newItem(1000, 2), newItem(1000, 3)
	g := newGate()
	st := w.join(a, a.gated(g))
	<-g.started
	st.Close()
	w.fetch(b)
	if w.result(resultYielded) != 1 || a.runs.Load() != 1 || w.metric("queued") != 0 {
		t.Error("it is tried again for nobody")
	}
	// And if somebody waits already.
	st = w.join(a, a.gated(g))
	waits := w.join(c, c.source)
	st.Close()
	if _, err := io.Copy(io.Discard, waits); err != nil {
		t.Error(err)
	}
}

func TestClosingWithAQueue(t *testing.T) {
	w := newWorld(t, Options{Encoders: 1})
	a := newItem(1000, 1)
	g := newGate()
	w.join(a, a.gated(g))
	<-g.started
	for n := range uint64(100) {
		w.join(newItem(10, n+1000), a.gated(g))
	}
	w.close()
	if w.metric("queued")+w.metric("live") != 0 {
		t.Error("something is left")
	}
}
