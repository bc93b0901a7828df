package hooks

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestAlarms: an alarm rings at its time by the clock, also one that is put
// right meanwhile; the earliest of a topic counts, and none after stop.
func TestAlarms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wrong atomic.Int64 // nanoseconds that the clock is off
		rung := make(chan string, 10)
		a := &alarms{clock: func() time.Time { return time.Now().Add(time.Duration(wrong.Load())) }}
		at := func(t time.Time, topic string) { a.first(t, topic, func() { rung <- topic }) }
		rings := func(topic string, after time.Duration) {
			t.Helper()
			begin := time.Now()
			select {
			case <-rung:
			case <-time.After(time.Hour):
			}
			if d := time.Since(begin); d != after {
				t.Errorf("rang after %v, want %v", d, after)
			}
		}
		now := time.Now()
		at(now.Add(20*time.Minute), "x")
		at(now.Add(10*time.Minute), "x")
		at(now.Add(30*time.Minute), "x")
		rings("x", 10*time.Minute)
		rings("x", time.Hour) // once

		at(time.Now().Add(-time.Hour), "x")
		rings("x", 0)

		at(time.Now().Add(30*time.Minute), "x")
		go func() {
			time.Sleep(5*time.Minute + time.Second)
			wrong.Store(int64(20 * time.Minute))
		}()
		rings("x", 10*time.Minute)

		at(time.Now().Add(time.Minute), "x") // the clock is 20 minutes ahead
		rings("x", 0)

		at(a.clock().Add(time.Minute), "x")
		a.at(a.clock().Add(3*time.Minute), "x", func() { rung <- "x" })
		rings("x", 3*time.Minute)
		at(a.clock().Add(time.Minute), "x")
		a.off("x")
		rings("x", time.Hour)

		at(a.clock().Add(time.Minute), "x")
		a.stop()
		rings("x", time.Hour)
		at(a.clock().Add(time.Minute), "x")
		rings("x", time.Hour)
	})
}
