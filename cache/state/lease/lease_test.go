package lease

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/memory"
)

// Of two servers one works; when it is silent the other does, and what the first wakes up to write fails.
func TestOneWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(nil)
		a, b := New(store, "work", "a"), New(store, "work", "b")
		if held, err := a.Try(t.Context()); !held || err != nil {
			t.Fatalf("nobody has it: %v, %v", held, err)
		}
		had := Held{a, a.epoch}
		write := func(h Held) error {
			return store.Update(t.Context(), h.Locks(), func(tx state.Tx) error { return h.Fence(tx) })
		}
		if err := write(had); err != nil {
			t.Errorf("the holder writes: %v", err)
		}
		for range 10 { // it is heard of
			time.Sleep(Beat)
			if held, err := a.Try(t.Context()); !held || err != nil {
				t.Fatalf("the holder keeps it: %v, %v", held, err)
			}
			if held, err := b.Try(t.Context()); held || err != nil {
				t.Fatalf("another has it, too: %v, %v", held, err)
			}
		}
		began := time.Now() // a is stopped
		for held := false; !held; {
			var err error
			if held, err = b.Try(t.Context()); err != nil {
				t.Fatal(err)
			}
			if time.Sleep(Beat); time.Since(began) > 10*time.Second {
				t.Fatal("after 10 s nobody has taken over")
			}
		}
		if err := write(had); !errors.Is(err, ErrFenced) {
			t.Errorf("who was stopped writes: %v", err)
		}
		if held, err := a.Try(t.Context()); held || err != nil {
			t.Errorf("who was stopped has it again: %v, %v", held, err)
		}
		if err := b.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		if held, err := a.Try(t.Context()); !held || err != nil {
			t.Errorf("what was given back is taken at once: %v, %v", held, err)
		}
		var who map[string][]string
		err := store.View(t.Context(), func(tx state.Reader) (err error) { who, err = Holders(tx); return err })
		if err != nil || len(who["a"]) != 1 || len(who) != 1 {
			t.Errorf("holders are %v, %v", who, err)
		}
	})
}

// Work ends when its lease is lost, and begins anew where it was got again.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(nil)
		ctx, cancel := context.WithCancel(t.Context())
		var at [2]atomic.Int64
		done := make(chan struct{}, 2)
		for i, name := range []string{"a", "b"} {
			go func() {
				New(store, "work", name).Run(ctx, func(ctx context.Context, _ Held) {
					at[i].Add(1)
					<-ctx.Done()
					at[i].Add(-1)
				})
				done <- struct{}{}
			}()
		}
		time.Sleep(time.Minute)
		if a, b := at[0].Load(), at[1].Load(); a+b != 1 {
			t.Errorf("%d and %d work", a, b)
		}
		err := store.Update(t.Context(), nil, func(tx state.Tx) error { // somebody else takes it
			return state.PutJSON(tx, bucket, "work", Row{Epoch: 100, By: "c"})
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(Beat + time.Second)
		if a, b := at[0].Load(), at[1].Load(); a+b != 0 {
			t.Errorf("%d and %d work, and a third has the lease", a, b)
		}
		time.Sleep(time.Minute) // and is silent
		if a, b := at[0].Load(), at[1].Load(); a+b != 1 {
			t.Errorf("%d and %d work", a, b)
		}
		cancel()
		<-done
		<-done
	})
}

func TestOnceAndAlone(t *testing.T) {
	var alone *Lease
	boom := errors.New("boom")
	work := func(context.Context, Held) error { return boom }
	if ran, err := alone.Once(t.Context(), work); !ran || !errors.Is(err, boom) {
		t.Errorf("who is alone: %v, %v", ran, err)
	}
	store := memory.New(nil)
	a, b := New(store, "work", "a"), New(store, "work", "b")
	ran, err := a.Once(t.Context(), func(ctx context.Context, _ Held) error {
		if ran, err := b.Once(ctx, work); ran || err != nil {
			t.Errorf("another works, too: %v, %v", ran, err)
		}
		return nil
	})
	if !ran || err != nil {
		t.Errorf("it is free: %v, %v", ran, err)
	}
	if ran, err := b.Once(t.Context(), work); !ran || !errors.Is(err, boom) {
		t.Errorf("it is free again: %v, %v", ran, err)
	}
}
