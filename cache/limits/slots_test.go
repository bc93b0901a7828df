package limits

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestSlots: one has three quarters at most, and what is given back is taken again.
func TestSlots(t *testing.T) {
	s := NewSlots(4)
	var held []func()
	take := func(who string, patience time.Duration) bool {
		done, err := s.Take(t.Context(), who, patience)
		if err == nil {
			held = append(held, done)
		}
		return err == nil
	}
	for range 3 {
		if !take("a", time.Second) {
			t.Fatal("three of four")
		}
	}
	if take("a", 10*time.Millisecond) {
		t.Error("one has all")
	}
	if !take("b", time.Second) {
		t.Error("no room for another")
	}
	if take("c", 10*time.Millisecond) {
		t.Error("five of four")
	}
	got := make(chan bool)
	go func() {
		done, err := s.Take(context.Background(), "c", 10*time.Second)
		if err == nil {
			done()
		}
		got <- err == nil
	}()
	held[0]()
	if !<-got {
		t.Error("what was given back is not taken")
	}
	for _, done := range held[1:] {
		done()
	}
	if len(s.own) != 0 {
		t.Errorf("%d are remembered", len(s.own))
	}
}

// TestWork: so much at once, a share later, and the others do not pay for it.
func TestWork(t *testing.T) {
	w := NewWork()
	if !w.Spend("a", workBurst/2*time.Second) || !w.Spend("b", 0) || !w.Spend("", time.Hour) || !w.Spend("", 0) {
		t.Error("too early")
	}
	if w.Spend("a", workBurst*time.Second) || w.Spend("a", 0) {
		t.Error("no end")
	}
	if !w.Spend("b", time.Second) {
		t.Error("another pays")
	}
	w.spent["a"] = debt{workBurst + 1, time.Now().Add(-time.Minute)}
	if !w.Spend("a", 0) {
		t.Error("it is not paid back")
	}
	for i := range 20_000 {
		w.Spend(string(rune('A'+i%100))+time.Duration(i).String(), time.Millisecond)
		if i%5000 == 0 {
			for name, d := range w.spent {
				w.spent[name] = debt{d.seconds, d.at.Add(-time.Hour)}
			}
		}
	}
	if len(w.spent) > 15_000 {
		t.Errorf("%d are remembered", len(w.spent))
	}
}

// Few have a turn at once, and who leaves while he waits takes none.
func TestTurns(t *testing.T) {
	w := NewWork()
	var at, most atomic.Int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			err := w.Do(t.Context(), "a", func() error {
				most.Store(max(most.Load(), at.Add(1)))
				time.Sleep(time.Millisecond)
				at.Add(-1)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := most.Load(); n < 1 || n > int64(cap(w.turns)) {
		t.Errorf("%d at once, of %d", n, cap(w.turns))
	}
	var held []func()
	for range cap(w.turns) {
		done, err := w.Turn(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, done)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := w.Turn(gone, "b"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	for _, done := range held {
		done()
	}
	if err := w.Do(t.Context(), "b", func() error { return errors.ErrUnsupported }); !errors.Is(err, errors.ErrUnsupported) || len(w.turns) > 0 {
		t.Errorf("%v, %d turns are taken", err, len(w.turns))
	}
	w.Spend("b", 2*workBurst*time.Second)
	if err := w.Do(t.Context(), "b", func() error { return nil }); !errors.Is(err, ErrBusy) {
		t.Errorf("%v", err)
	}
}
