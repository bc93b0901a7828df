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
		if _, err := st.WriteTo(io.Discard); err != nil {
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
		if _, err := st.WriteTo(io.Discard); err != nil {
			t.Error(err)
		}
	}
	if b.runs.Load() != 0 {
		t.Error("it was encoded for nobody")
	}
	w.fetch(b)
}

func TestBackgroundLeavesAnEncoder(t *testing.T) {
	w := newWorld(t, Options{Encoders: 2})
	a, b, live := newItem(1000, 1), newItem(1000, 2), newItem(1000, 3)
	ga, gb := newGate(), newGate()
	if err := errors.Join(w.Start(a.name, a.gated(ga)), w.Start(b.name, b.gated(gb)), w.Start(b.name, b.gated(gb))); err != nil {
		t.Fatal(err)
	}
	<-ga.started
	if w.metric("live") != 1 || w.metric("queued") != 1 {
		t.Errorf("%d live, %d queued", w.metric("live"), w.metric("queued"))
	}
	w.fetch(live)
	if a.runs.Load() != 1 || b.runs.Load() != 0 {
		t.Error("the live one did not go beside")
	}
	close(ga.steps)
	close(gb.steps)
	eventually(t, "all are kept", func() bool { return w.has(a) && w.has(b) })
	if err := w.Start(a.name, a.gated(ga)); err != nil {
		t.Fatal(err)
	}
	if w.metric("live")+w.metric("queued") != 0 || a.runs.Load() != 1 || b.runs.Load() != 1 {
		t.Error("something was encoded twice")
	}
}

func TestBackgroundMakesWay(t *testing.T) {
	w := newWorld(t, Options{Encoders: 1})
	back, next, live := newItem(1000, 1), newItem(1000, 2), newItem(1000, 3)
	g := newGate()
	if err := errors.Join(w.Start(back.name, back.gated(g)), w.Start(next.name, next.source)); err != nil {
		t.Fatal(err)
	}
	<-g.started
	w.fetch(live)
	if w.result(resultYielded) != 1 || next.runs.Load() != 0 {
		t.Errorf("%d yielded", w.result(resultYielded))
	}
	close(g.steps)
	eventually(t, "it is done later", func() bool { return w.has(back) && w.has(next) })
	if back.runs.Load() != 2 {
		t.Errorf("%d runs", back.runs.Load())
	}
}

// Once somebody reads it, a background encode is like any other, and when he
// leaves it goes on.
func TestJoiningTheBackground(t *testing.T) {
	w := newWorld(t, Options{Encoders: 1})
	w.linger = 0
	back, live := newItem(1000, 1), newItem(1000, 2)
	g := newGate()
	if err := w.Start(back.name, back.gated(g)); err != nil {
		t.Fatal(err)
	}
	<-g.started
	reader := w.join(back, back.source)
	other := w.join(live, live.source)
	if w.metric("queued") != 1 || w.metric("live") != 1 {
		t.Error("it made way in spite of its reader")
	}
	other.Close()
	reader.Close()
	close(g.steps)
	eventually(t, "it is done", func() bool { return w.has(back) })
	if back.runs.Load() != 1 || live.runs.Load() != 0 {
		t.Error("it was broken off")
	}
}

func TestJoiningWhatWaitsInTheBackground(t *testing.T) {
	w := newWorld(t, Options{Encoders: 1})
	busy, later, back := newItem(1000, 1), newItem(1000, 2), newItem(1000, 3)
	g, gb := newGate(), newGate()
	first := w.join(busy, busy.gated(g))
	<-g.started
	if err := errors.Join(w.Start(later.name, later.gated(gb)), w.Start(back.name, back.source)); err != nil {
		t.Fatal(err)
	}
	reader := w.join(back, notThis)
	gone := w.join(later, notThis)
	gone.Close() // back to the background, behind
	close(g.steps)
	if _, err := io.ReadAll(reader); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(first); err != nil {
		t.Error(err)
	}
	close(gb.steps)
	eventually(t, "it is done", func() bool { return w.has(later) })
}

func notThis(context.Context, io.Writer) error { return errors.New("not this source") }

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
	if _, err := waits.WriteTo(io.Discard); err != nil {
		t.Error(err)
	}
}

func TestClosingWithAQueue(t *testing.T) {
	w := newWorld(t, Options{Encoders: 1})
	a := newItem(1000, 1)
	g := newGate()
	if err := w.Start(a.name, a.gated(g)); err != nil {
		t.Fatal(err)
	}
	<-g.started
	for n := range uint64(100) {
		i := newItem(10, n+2)
		if err := w.Start(i.name, i.source); err != nil {
			t.Fatal(err)
		}
		w.join(newItem(10, n+1000), a.gated(g))
	}
	w.close()
	if w.metric("queued")+w.metric("live") != 0 {
		t.Error("something is left")
	}
}
