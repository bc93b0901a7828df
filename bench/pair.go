//go:build linux

package main

import (
	"cmp"
	"slices"

	"narwharf/bench/load"
)

// A sample is one measurement of one server.
type sample struct {
	value float64 // in the row's unit
	p50   float64 // latency in microseconds, 0 where a row has none
	p99   float64
	cpu   float64 // CPU seconds of the server, by the row's unit of work
	load  float64 // the same of the load generator
}

// rounds measures n servers one after the other, k times over: A B A B …, so
// that what the machine does besides falls on all of them. It returns the
// samples of each server, in the order of the rounds.
func rounds(k, n int, measure func(server int) (sample, error)) ([][]sample, error) {
	all := make([][]sample, n)
	for range k {
		for i := range n {
			s, err := measure(i)
			if err != nil {
				return nil, err
			}
			all[i] = append(all[i], s)
		}
	}
	return all, nil
}

// pick takes one number of each sample.
func pick(samples []sample, what func(sample) float64) []float64 {
	out := make([]float64, len(samples))
	for i, s := range samples {
		out[i] = what(s)
	}
	return out
}

func byValue(s sample) float64 { return s.value }
func byP50(s sample) float64   { return s.p50 }
func byP99(s sample) float64   { return s.p99 }
func byCPU(s sample) float64   { return s.cpu }
func byLoad(s sample) float64  { return s.load }

// A ratio is a relation of two servers, formed round by round before the
// median is taken: the two halves of a pair saw the same state of the machine,
// two medians did not. low and high are the quartiles.
type ratio struct{ median, low, high float64 }

// pairs divides a by b, which have one number for each round. Rounds where b
// is 0 (less than one clock tick of CPU time) say nothing and are left out.
func pairs(a, b []float64) ratio {
	var q []float64
	for i := range min(len(a), len(b)) {
		if b[i] != 0 {
			q = append(q, a[i]/b[i])
		}
	}
	if len(q) == 0 {
		return ratio{}
	}
	slices.Sort(q)
	return ratio{load.Percentile(q, 50), load.Percentile(q, 25), load.Percentile(q, 75)}
}

// median is the middle value, of an even number the lower one of the two in the
// middle; 0 for no values.
func median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return load.Percentile(sorted, 50)
}
