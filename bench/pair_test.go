//go:build linux

package main

import (
	"errors"
	"slices"
	"testing"
)

func TestRoundsAlternate(t *testing.T) {
	var order []int
	all, err := rounds(3, 2, func(server int) (sample, error) {
		order = append(order, server)
		return sample{value: float64(len(order))}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []int{0, 1, 0, 1, 0, 1}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
	if got, want := pick(all[0], byValue), []float64{1, 3, 5}; !slices.Equal(got, want) {
		t.Errorf("first server has %v, want %v", got, want)
	}
	if got, want := pick(all[1], byValue), []float64{2, 4, 6}; !slices.Equal(got, want) {
		t.Errorf("second server has %v, want %v", got, want)
	}
}

func TestRoundsStopAtError(t *testing.T) {
	n, wrong := 0, errors.New("wrong reply")
	all, err := rounds(3, 2, func(int) (sample, error) {
		if n++; n == 2 {
			return sample{}, wrong
		}
		return sample{}, nil
	})
	if !errors.Is(err, wrong) || all != nil || n != 2 {
		t.Errorf("%d measurements, %v, %v; want none after the failed one", n, all, err)
	}
}

func TestPairs(t *testing.T) {
	for _, c := range []struct {
		a, b []float64
		want ratio
	}{
		// The machine was half as fast in the second round: the ratio is not.
		{[]float64{100, 50, 98}, []float64{100, 50, 100}, ratio{1, 0.98, 1}},
		// The ratio of the medians would be 1.
		{[]float64{1, 2, 3}, []float64{2, 4, 1}, ratio{0.5, 0.5, 3}},
		{[]float64{8, 7, 6, 5, 4, 3, 2, 1}, []float64{1, 1, 1, 1, 1, 1, 1, 1}, ratio{4, 2, 6}},
		{[]float64{6, 8}, []float64{0, 4}, ratio{2, 2, 2}},
		{[]float64{6}, nil, ratio{}},
		{[]float64{6}, []float64{0}, ratio{}},
	} {
		if got := pairs(c.a, c.b); got != c.want {
			t.Errorf("pairs of %v and %v: %+v, want %+v", c.a, c.b, got, c.want)
		}
	}
}

func TestMedian(t *testing.T) {
	values := []float64{9, 1, 5}
	if got := median(values); got != 5 {
		t.Errorf("median %v, want 5", got)
	}
	if !slices.Equal(values, []float64{9, 1, 5}) {
		t.Errorf("median changed its argument to %v", values)
	}
	if got := median([]float64{4, 3, 2, 1}); got != 2 {
		t.Errorf("median of four %v, want the lower middle 2", got)
	}
}
