package transport

import (
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "x": 0, "99999999": 10 * time.Minute, "Fri, 02 Jan 2026 03:04:25 GMT": 20 * time.Second, "Fri, 02 Jan 2020 03:04:25 GMT": 0,
	} {
		if got := retryAfter(s, now); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
}
