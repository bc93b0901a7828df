//go:build linux

package main

import (
	"cmp"
	"fmt"
)

// A row is one line of the report.
type row struct {
	what     string
	values   [2]string // Narwharf's and nginx's, "" if not measured
	ratio    ratio     // zero if there is nothing to compare with
	cpus     [2]string // CPU time of the servers, by unit of work
	cpuRatio ratio
	remark   string

	atLeast float64 // target of the ratio, 0 if there is none
	than    string  // what it is a ratio to, "" for nginx
	goal    string  // target in words, instead of atLeast
	missed  bool    // with goal
}

// newRow compares one number of two servers' samples.
func newRow(what, format string, a, b []sample, number func(sample) float64) row {
	x, y := pick(a, number), pick(b, number)
	r := row{what: what, ratio: pairs(x, y)}
	r.values = formatted(format, x, y)
	return r
}

// addCPU adds the CPU times.
func (r *row) addCPU(format string, a, b []sample) {
	x, y := pick(a, byCPU), pick(b, byCPU)
	r.cpus = formatted(format, x, y)
	r.cpuRatio = pairs(x, y)
}

func formatted(format string, x, y []float64) (out [2]string) {
	for i, values := range [][]float64{x, y} {
		if len(values) > 0 {
			out[i] = fmt.Sprintf(format, median(values))
		}
	}
	return out
}

// target is the target in words, "" if there is none.
func (r *row) target() string {
	if r.atLeast != 0 {
		return fmt.Sprintf("≥ %.2f × %s", r.atLeast, cmp.Or(r.than, "nginx"))
	}
	return r.goal
}

// verdict says whether the target was reached, "" if there is none.
func (r *row) verdict() string {
	switch {
	case r.target() == "":
		return ""
	case r.missed, r.atLeast != 0 && r.ratio.median < r.atLeast:
		return "**missed**"
	}
	return "pass"
}

// String is the ratio as "1.05 (0.98–1.11)": the median of the pairs and their
// quartiles; "" if nothing was compared.
func (r ratio) String() string {
	if r == (ratio{}) {
		return ""
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", r.median, r.low, r.high)
}
