package compress

import (
	"context"
	"errors"
	"syscall"
	"testing"
)

// TestAhead: what nobody has asked for is packed while nobody wants an encoder, and evicts nothing.
func TestAhead(t *testing.T) {
	w := newWorld(t, Options{Limit: 2 << 20})
	a, b, c := newItem(1<<20, 1), newItem(1<<20, 2), newItem(100, 3)
	ahead := func(i *item) error { return w.Ahead(t.Context(), i.key, int64(len(i.bytes)), i.source) }
	for range 2 {
		if err := ahead(a); err != nil || !w.has(a) || a.runs.Load() != 1 {
			t.Fatalf("%v, packed %d times", err, a.runs.Load())
		}
	}
	w.fetch(a)

	// Somebody asks for another NAR while b is packed, and then for b.
	g := newGate()
	done := make(chan error)
	go func() { done <- w.Ahead(t.Context(), b.key, int64(len(b.bytes)), b.gated(g)) }()
	<-g.started
	g.steps <- 300 << 10
	if err := ahead(c); !errors.Is(err, ErrBusy) {
		t.Errorf("two at once: %v", err)
	}
	w.fetch(c)
	if err := <-done; !errors.Is(err, ErrBusy) || w.has(b) {
		t.Errorf("when somebody asks: %v", err)
	}
	if n := w.result(resultYielded); n != 1 {
		t.Errorf("%v gave way", n)
	}
	w.fetch(b)

	// Encoders are at work.
	h := newGate()
	d, e := newItem(1<<20, 4), newItem(1<<10, 5)
	st := w.join(d, d.gated(h))
	<-h.started
	if err := ahead(e); !errors.Is(err, ErrBusy) {
		t.Errorf("beside a client: %v", err)
	}
	close(h.steps)
	f, _, err := st.File(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.Close()

	// Room.
	if err := ahead(newItem(1<<20, 6)); !errors.Is(err, ErrNoRoom) || !w.has(a) || !w.has(b) || !w.has(d) {
		t.Errorf("without room: %v", err)
	}
	w.reserve = 1 << 60
	if err := ahead(e); !errors.Is(err, ErrNoRoom) {
		t.Errorf("on a full disk: %v", err)
	}
	w.reserve = 0
	w.fault = func(op string) error {
		if op == "write" {
			return syscall.EIO
		}
		return nil
	}
	if err := ahead(e); !errors.Is(err, ErrNotStored) || w.has(e) {
		t.Errorf("on a broken disk: %v", err)
	}
	w.fault = nil

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Ahead(gone, e.key, 1<<10, e.source); !errors.Is(err, context.Canceled) {
		t.Errorf("when it is to end: %v", err)
	}
	w.close()
	if err := ahead(e); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestAheadEndsWithTheStore: Close does not wait for a whole NAR.
func TestAheadEndsWithTheStore(t *testing.T) {
	w := newWorld(t, Options{})
	i, g := newItem(1<<20, 1), newGate()
	done := make(chan error)
	go func() { done <- w.Ahead(t.Context(), i.key, 1<<20, i.gated(g)) }()
	<-g.started
	w.close()
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}
