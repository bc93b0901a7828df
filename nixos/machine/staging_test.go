package machine

import (
	"testing"
	"time"
)

func TestBackOff(t *testing.T) {
	for tries, want := range map[int]time.Duration{1: 5 * time.Second, 2: 10 * time.Second, 7: 5 * time.Minute, 1000: 5 * time.Minute} {
		if got := backOff(tries); got != want {
			t.Errorf("%d: %s", tries, got)
		}
	}
}
