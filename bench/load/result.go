//go:build linux

package load

import (
	"slices"
	"time"
)

// Result is one run that had no wrong reply.
type Result struct {
	Bytes     int64 // of bodies
	Elapsed   time.Duration
	Latencies []time.Duration // one for each reply: from the send to the last byte
}

// Rate is replies per second.
func (r *Result) Rate() float64 { return float64(len(r.Latencies)) / r.Elapsed.Seconds() }

// Throughput is body bytes per second.
func (r *Result) Throughput() float64 { return float64(r.Bytes) / r.Elapsed.Seconds() }

// Percentile is the smallest latency that at least p percent of the replies
// did not exceed (the nearest-rank definition). It sorts Latencies.
func (r *Result) Percentile(p float64) time.Duration {
	slices.Sort(r.Latencies)
	return Percentile(r.Latencies, p)
}

// Percentile is the nearest-rank percentile of a sorted list: its smallest
// value that at least p percent of the values do not exceed. 0 for no values.
func Percentile[T any](sorted []T, p float64) T {
	var zero T
	if len(sorted) == 0 {
		return zero
	}
	// Whole-number arithmetic in thousandths of a percent: 99 % of 100
	// values must be the 99th, not the 100th by a rounding error.
	milli := int64(p * 1000)
	rank := (milli*int64(len(sorted)) + 99_999) / 100_000
	return sorted[min(max(rank, 1), int64(len(sorted)))-1]
}
