//go:build linux

package load

import (
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = i + 1
	}
	for _, c := range []struct {
		values []int
		p      float64
		want   int
	}{
		{nil, 50, 0},
		{[]int{7}, 0, 7}, {[]int{7}, 50, 7}, {[]int{7}, 100, 7},
		{[]int{1, 2}, 50, 1}, {[]int{1, 2}, 50.1, 2},
		{hundred, 50, 50}, {hundred, 99, 99}, {hundred, 99.9, 100}, {hundred, 100, 100}, {hundred, 1, 1},
	} {
		if got := Percentile(c.values, c.p); got != c.want {
			t.Errorf("p%v of %d values: %d, want %d", c.p, len(c.values), got, c.want)
		}
	}
}

func TestResult(t *testing.T) {
	r := &Result{Bytes: 3e9, Elapsed: 1500 * time.Millisecond, Latencies: []time.Duration{3, 1, 2}}
	if got := r.Rate(); got != 2 {
		t.Errorf("rate %v, want 2", got)
	}
	if got := r.Throughput(); got != 2e9 {
		t.Errorf("throughput %v, want 2e9", got)
	}
	if got := r.Percentile(50); got != 2 {
		t.Errorf("p50 %v of unsorted latencies, want 2ns", got)
	}
}
