package timers

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestSet: a timer runs at its time by the clock, also one that is put right
// meanwhile; the earliest of a key counts, and none after Stop.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wrong atomic.Int64 // nanoseconds that the clock is off
		a := New(func() time.Time { return time.Now().Add(time.Duration(wrong.Load())) })
		ran := make(chan struct{}, 1)
		run := func() { ran <- struct{}{} }
		at := func(t time.Time) { a.First(t, "x", run) }
		runs := func(after time.Duration) {
			t.Helper()
			begin := time.Now()
			select {
			case <-ran:
			case <-time.After(time.Hour):
			}
			if d := time.Since(begin); d != after {
				t.Errorf("ran after %v, want %v", d, after)
			}
		}
		now := time.Now()
		at(now.Add(20 * time.Minute))
		at(now.Add(10 * time.Minute))
		at(now.Add(30 * time.Minute))
		runs(10 * time.Minute)
		runs(time.Hour) // once

		at(time.Now().Add(-time.Hour))
		runs(0)

		at(time.Now().Add(30 * time.Minute))
		go func() {
			time.Sleep(5*time.Minute + time.Second)
			wrong.Store(int64(20 * time.Minute))
		}()
		runs(10 * time.Minute)

		at(time.Now().Add(time.Minute)) // the clock is 20 minutes ahead
		runs(0)

		at(a.clock().Add(time.Minute))
		a.At(a.clock().Add(3*time.Minute), "x", run)
		runs(3 * time.Minute)
		at(a.clock().Add(time.Minute))
		a.Off("x")
		runs(time.Hour)

		at(a.clock().Add(time.Minute))
		a.Stop()
		runs(time.Hour)
		at(a.clock().Add(time.Minute))
		runs(time.Hour)
	})
}
