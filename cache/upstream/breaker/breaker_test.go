package breaker

import (
	"testing"
	"time"
)

func TestBreaker(t *testing.T) {
	var b Breaker
	now := time.Now()
	at := func(after time.Duration) time.Time { return now.Add(after) }
	fail := func(when time.Time) bool { return b.Done(when, false) }
	for i := range breakAfter - 1 {
		if !b.Ready(now) || fail(now) || b.Down() {
			t.Fatalf("down after %d failures", i+1)
		}
	}
	if b.Done(now, true) {
		t.Error("up again without having been down")
	}
	for range breakAfter - 1 {
		fail(now)
	}
	if !fail(now) || !b.Down() || b.Ready(at(firstPause-1)) {
		t.Error("not down")
	}
	for range 30 { // which were under way
		if fail(at(time.Second)) {
			t.Error("down twice")
		}
	}
	if !b.Ready(at(firstPause)) || b.Ready(at(firstPause)) {
		t.Error("not one tries")
	}
	fail(at(firstPause))
	if b.Ready(at(3*firstPause-1)) || !b.Ready(at(3*firstPause)) {
		t.Error("the pause does not double")
	}
	if b.Ready(at(3*firstPause+tryTime/2)) || !b.Ready(at(3*firstPause+tryTime)) {
		t.Error("one that does not come to an end is waited for")
	}
	if !b.Done(at(time.Hour), true) || b.Down() || !b.Ready(at(time.Hour)) || !b.Ready(at(time.Hour)) {
		t.Error("not up again")
	}
	for range breakAfter {
		fail(now)
	}
	for i := time.Duration(0); i < 100; i++ {
		when := at(i * time.Hour)
		if b.Ready(when) {
			fail(when)
		}
	}
	if b.Ready(at(99*time.Hour+maxPause-1)) || !b.Ready(at(99*time.Hour+maxPause)) {
		t.Error("the longest pause is another")
	}
}
