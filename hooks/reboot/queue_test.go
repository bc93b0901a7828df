package reboot

import (
	"testing"
	"time"

	"narwharf/hooks/host"
)

// TestRest: how long a host rests, who is before whom, and that a clock which was
// set back lets nobody rest for ever.
func TestRest(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for times, want := range map[int]time.Duration{1: 15 * time.Minute, 2: 30 * time.Minute, 4: time.Hour, 100: time.Hour} {
		u := &host.Unused{Times: times, At: at}
		for _, c := range []struct {
			now   time.Time
			rests bool
		}{{at, true}, {at.Add(want - 1), true}, {at.Add(want), false}, {at.Add(-2 * time.Hour), false}} {
			if got := restsUntil(u, c.now); got.IsZero() == c.rests || c.rests && !got.Equal(at.Add(want)) {
				t.Errorf("after %d times, %s later: until %s", times, c.now.Sub(at), got)
			}
		}
	}
	line := []*host.Unused{nil, {Times: 1, At: at}, {Times: 1, At: at.Add(1)}, {Times: 2, At: at}}
	for i, u := range line {
		for j, v := range line {
			if before(u, v) != (i < j) {
				t.Errorf("%d before %d: %v", i, j, before(u, v))
			}
		}
	}
}
