package mirror

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"narwharf/cache/state"
	"narwharf/cache/state/memory"
)

// held delays the return of one Update until release is closed.
type held struct {
	state.Store
	done    chan struct{}
	release chan struct{}
}

func (h *held) Update(ctx context.Context, locks []string, fn func(tx state.Tx) error) error {
	err := h.Store.Update(ctx, locks, fn)
	if len(locks) == 1 && locks[0] == "slow" {
		close(h.done)
		<-h.release
	}
	return err
}

// TestNeverBehindOneself: memory does not go back behind a change of this process
// that was seen, when the one before it returns late.
func TestNeverBehindOneself(t *testing.T) {
	h := &held{memory.New(nil), make(chan struct{}), make(chan struct{})}
	set := NewSet(h, slog.New(slog.DiscardHandler))
	h.Watch(set.Noticed)
	a := mustOpen(t, set, "a", nil)
	got := 0
	b := mustOpen(t, set, "b", func(key string, was, is *thing) {
		if is != nil && is.N == 1 {
			got = a.Get("k").N
		}
	})
	end := make(chan error)
	go func() {
		end <- set.Update(t.Context(), []string{"slow"}, func(tx *Tx) error {
			a.Put(tx, "k", &thing{1})
			b.Put(tx, "x", &thing{1})
			return nil
		})
	}()
	<-h.done
	if err := set.Update(t.Context(), []string{"fast"}, func(tx *Tx) error {
		a.Put(tx, "k", &thing{2})
		b.Put(tx, "x", &thing{2})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if a.Get("k").N != 2 || b.Get("x").N != 2 {
		t.Fatal("a change is not seen")
	}
	close(h.release)
	if err := <-end; err != nil {
		t.Fatal(err)
	}
	if got != 2 {
		t.Errorf("Get said %d after 2 was committed by this process and seen", got)
	}
}

// uncertain is a state whose commits are made, of which nobody hears.
type uncertain struct {
	state.Store
	on bool
}

func (u *uncertain) Update(ctx context.Context, locks []string, fn func(tx state.Tx) error) error {
	err := u.Store.Update(ctx, locks, fn)
	if u.on && err == nil {
		return state.ErrUncertain
	}
	return err
}
func (u *uncertain) Watch(fn func([]string)) func() {
	return u.Store.Watch(func(t []string) {
		if !u.on {
			fn(t)
		}
	})
}

// TestUncertain: what may have been committed is read again.
func TestUncertain(t *testing.T) {
	u := &uncertain{Store: memory.New(nil)}
	set := NewSet(u, slog.New(slog.DiscardHandler))
	u.Watch(set.Noticed)
	a := mustOpen(t, set, "a", nil)
	put := func(n int) error {
		return set.Update(t.Context(), nil, func(tx *Tx) error {
			a.Put(tx, "k", &thing{n})
			return nil
		})
	}
	if err := put(1); err != nil || a.Get("k").N != 1 {
		t.Fatal(err)
	}
	u.on = true
	if err := put(2); !errors.Is(err, state.ErrUncertain) {
		t.Fatal(err)
	}
	u.on = false
	if n := a.Get("k").N; n != 2 {
		t.Errorf("memory has %d for ever", n)
	}
}

// away is a state that cannot be read while it is on.
type away struct {
	state.Store
	on    bool
	reads int
}

func (u *away) View(ctx context.Context, fn func(tx state.Reader) error) error {
	if u.on {
		u.reads++
		return state.ErrUnavailable
	}
	return u.Store.View(ctx, fn)
}
func (u *away) Scan(ctx context.Context, b string, r state.Range, fn func([]state.Entry) error) error {
	if u.on {
		u.reads++
		return state.ErrUnavailable
	}
	return u.Store.Scan(ctx, b, r, fn)
}

// TestAway: memory answers while the state is away, and tries seldom.
func TestAway(t *testing.T) {
	u := &away{Store: memory.New(nil)}
	set := NewSet(u, slog.New(slog.DiscardHandler))
	u.Watch(set.Noticed)
	a := mustOpen(t, set, "a", nil)
	put := func(n int) {
		t.Helper()
		if err := set.Update(t.Context(), nil, func(tx *Tx) error {
			a.Put(tx, "k", &thing{n})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	put(1)
	a.Get("k")
	u.on = true
	set.Noticed([]string{state.All})
	for range 1000 {
		if a.Get("k").N != 1 {
			t.Fatal("memory does not answer")
		}
	}
	if u.reads > 2 {
		t.Errorf("%d tries to read what is away", u.reads)
	}
	u.on = false
	put(2)
	a.mu.Lock()
	a.failed = a.failed.Add(-again)
	a.mu.Unlock()
	if n := a.Get("k").N; n != 2 {
		t.Errorf("back again, memory has %d", n)
	}
}

func mustOpen(t *testing.T, set *Set, bucket string, replaced func(key string, was, is *thing)) *Table[thing] {
	t.Helper()
	table, err := Open(set, bucket, bucket, replaced)
	if err != nil {
		t.Fatal(err)
	}
	return table
}
