package limits

import (
	"context"
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
