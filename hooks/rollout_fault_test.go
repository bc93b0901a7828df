package hooks

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"narwharf/hooks/rollout"
)

// flight checks what may never be: more hosts on their way than the policy lets.
func (f *fleet) flight(limit int) {
	f.t.Helper()
	n := 0
	for _, m := range f.robots {
		if m.st.State == "draining" {
			n++
		}
	}
	if n > limit {
		f.t.Fatalf("%d hosts are on their way, and %d may be", n, limit)
	}
}

// TestRolloutFailsAtEachWrite: whichever write fails while a release goes out, and also if the
// server ends there, the roll-out comes to the same end, and every host activates it once.
func TestRolloutFailsAtEachWrite(t *testing.T) {
	every := int64(1)
	if testing.Short() {
		every = 9
	}
	for _, killed := range []bool{false, true} {
		for n, done := int64(1), false; !done; n += every {
			t.Run(fmt.Sprintf("killed %v, write %d", killed, n), func(t *testing.T) {
				f := newFleet(t, 4)
				f.left = new(atomic.Int64)
				f.halt()
				f.serve(faulty{f.db, f.left})
				f.fresh()
				f.left.Store(n)
				f.goesOut(n, killed)
				if done = f.left.Load() > 0; done && n < 20 {
					t.Errorf("it has made %d writes", n)
				}
				done = done || t.Failed()
			})
		}
	}
}

// goesOut is a roll-out in two waves, a pause in the middle.
func (f *fleet) goesOut(n int64, killed bool) {
	f.t.Helper()
	again := func() {
		f.flight(2)
		if killed && f.left.Load() <= 0 {
			f.left.Store(1 << 40)
			f.halt()
			f.serve(faulty{f.db, f.left})
			f.fresh()
			f.left.Store(-1)
		}
		f.later(2 * time.Second) // a step that failed is taken again
		f.settle()
	}
	f.policy(`{"rollout":{"waves":[{"select":"canary","bake":"10m"},{}],"max_concurrency":2}}`)
	again()
	r := f.release(f.head(2), f.entry("*", f.systems["b"]))
	f.asks(func() answer { return f.promoteAs(f.ci, 1, r) })
	again()
	f.want(rollout.Running, "b", 1)
	if f.verb(rollout.Pause) != nil {
		again()
		f.does(rollout.Pause)
	}
	again()
	f.later(10 * time.Minute)
	again()
	f.want(rollout.Paused, "b", 1)
	if f.verb(rollout.Resume) != nil {
		again()
		f.does(rollout.Resume)
	}
	again()
	again()
	f.want(rollout.Completed, "b", 4)
	for _, m := range f.robots {
		if len(m.ran) != 1 {
			f.t.Fatalf("a fault at write %d: %s activated %v", n, m.name, m.ran)
		}
	}
}

// fresh is that hosts poll a server anew.
func (f *fleet) fresh() {
	for _, m := range f.robots {
		m.polling = false
	}
}
