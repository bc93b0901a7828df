package hooks

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"narwharf/cache/state"
	"narwharf/hooks/api"
	"narwharf/signing"
)

// uncertainState: the next commit is made and nobody knows.
type uncertainState struct {
	state.Store
	on *atomic.Bool
}

func (u uncertainState) Update(ctx context.Context, locks []string, fn func(tx state.Tx) error) error {
	on := u.on.Load()
	err := u.Store.Update(ctx, locks, fn)
	if on && err == nil {
		return state.ErrUncertain
	}
	return err
}

func (u uncertainState) Watch(fn func([]string)) func() {
	return u.Store.Watch(func(t []string) {
		if !u.on.Load() {
			fn(t)
		}
	})
}

// TestPromoteUncertain: a promote that may have been committed can be said again.
func TestPromoteUncertain(t *testing.T) {
	w := newWorld(t)
	w.halt()
	on := new(atomic.Bool)
	w.serve(uncertainState{w.db, on})
	w.promote(1, w.entry("*", w.system("a")))
	w.do("GET", "/api/v1/channels/web", w.ci, nil)
	r := w.release(w.head(2), w.entry("*", w.system("b")))
	on.Store(true)
	w.must(w.promoteAs(w.ci, 1, r), 500, api.Internal)
	on.Store(false)
	w.must(w.promoteAs(w.ci, 1, r), 200, "")
	a := decode[api.Channel](t, w.do("GET", "/api/v1/channels/web", w.ci, nil))
	if a.Seq != 2 {
		t.Errorf("it says seq %d; the state has 2", a.Seq)
	}
}

// TestMergeUncertain: more signatures for what memory is behind of come to an end.
func TestMergeUncertain(t *testing.T) {
	w := newWorld(t)
	w.halt()
	on := new(atomic.Bool)
	var updates atomic.Int64
	w.serve(counted{uncertainState{w.db, on}, &updates})
	k2 := newKey(t, "deploy-2")
	r := w.release(w.head(1), w.entry("*", w.system("a")))
	p := &api.Promotion{Release: *r, Keys: []string{w.key.Public().String(), k2.Public().String()}, Threshold: 1}
	if a := w.do("PUT", "/api/v1/channels/web", w.admin, p, "If-Match", `"0"`); a.status != 200 {
		t.Fatal(a)
	}
	w.do("GET", "/api/v1/channels/web", w.ci, nil)
	both, err := signing.NewRelease(w.headOf(r), []signing.Entry{w.entry("*", w.system("a"))}, w.key, k2)
	if err != nil {
		t.Fatal(err)
	}
	on.Store(true)
	w.do("PUT", "/api/v1/channels/web", w.ci, &api.Promotion{Release: *both}, "If-Match", `"1"`)
	on.Store(false)
	updates.Store(0)
	done := make(chan answer, 1)
	go func() {
		a, _ := w.try("PUT", "/api/v1/channels/web", w.ci, &api.Promotion{Release: *both}, "If-Match", `"1"`)
		done <- a
	}()
	select {
	case a := <-done:
		if a.status != 200 || updates.Load() > 10 {
			t.Errorf("%d transactions, then %s", updates.Load(), a)
		}
	case <-time.After(20 * time.Second):
		t.Errorf("the promote has not ended after %d transactions", updates.Load())
	}
}

func (w *world) headOf(r *signing.Release) signing.Head {
	h, _, err := r.Check()
	if err != nil {
		w.t.Fatal(err)
	}
	return *h
}

type counted struct {
	state.Store
	n *atomic.Int64
}

func (c counted) Update(ctx context.Context, locks []string, fn func(tx state.Tx) error) error {
	c.n.Add(1)
	return c.Store.Update(ctx, locks, fn)
}
