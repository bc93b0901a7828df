package simulate

import (
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"
)

// Runs is several runs of one setup, each with its own seed.
type Runs []*Result

// Repeat runs a setup with the seeds from first on.
func Repeat(s *Setup, first uint64, seeds int) (all Runs, err error) {
	for i := range seeds {
		r, err := Run(s, first+uint64(i))
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// Percentile is that of a number over all runs.
func (all Runs) Percentile(p int, of func(*Result) int64) int64 {
	values := make([]int64, 0, len(all))
	for _, r := range all {
		values = append(values, of(r))
	}
	slices.Sort(values)
	return values[min(len(values)*p/100, len(values)-1)]
}

// Numbers of a run, for Percentile.
func took(r *Result) int64    { return int64(r.Took) }
func exposed(r *Result) int64 { return int64(r.Exposed) }
func faults(r *Result) int64  { return int64(r.Faults) }
func well(r *Result) int64    { return int64(r.Well) }

// States counts how runs ended.
func (all Runs) States() map[string]int {
	n := make(map[string]int)
	for _, r := range all {
		n[r.State]++
	}
	return n
}

// Rows are the numbers of runs as people compare them: a name, and the middle with the
// 5th and 95th percentile.
func (all Runs) Rows() [][2]string {
	three := func(of func(*Result) int64, text func(int64) string) string {
		low, mid, high := text(all.Percentile(5, of)), text(all.Percentile(50, of)), text(all.Percentile(95, of))
		if low == high {
			return mid
		}
		return fmt.Sprintf("%s (%s to %s)", mid, low, high)
	}
	count := func(n int64) string { return strconv.FormatInt(n, 10) }
	span := func(n int64) string { return Text(time.Duration(n)) }
	ended := ""
	for _, state := range []string{"completed", "halted", "running", "planned"} {
		if n := all.States()[state]; n > 0 {
			if ended != "" {
				ended += ", "
			}
			ended += state
			if len(all) > 1 {
				ended += fmt.Sprintf(" %d", n)
			}
		}
	}
	return [][2]string{
		{"ended", ended},
		{"took", three(took, span)},
		{"began with the release", three(exposed, count)},
		{"ended badly", three(faults, count)},
		{"run it at the end", three(well, count)},
		{"in flight at once", three(func(r *Result) int64 { return int64(r.MaxFlight) }, count)},
	}
}

// Text is a time as people say it: two units are enough.
func Text(d time.Duration) string {
	d = d.Round(time.Second)
	switch h, m, s := int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60; {
	case h >= 48:
		return fmt.Sprintf("%dd%dh", h/24, h%24)
	case h > 0:
		return fmt.Sprintf("%dh%02dm", h, m)
	case m > 0:
		return fmt.Sprintf("%dm%02ds", m, s)
	default:
		return fmt.Sprintf("%ds", s)
	}
}

// Timeline prints what happened in a run.
func (r *Result) Timeline(out io.Writer) {
	for _, l := range r.Lines {
		fmt.Fprintf(out, "%9s  %s\n", Text(l.At), l.Text)
	}
	if r.State == "halted" {
		fmt.Fprintf(out, "           the bad release reached %d of %d hosts before the halt\n", r.Exposed, r.Hosts)
	}
}

// CSV writes the points of a run.
func (r *Result) CSV(out io.Writer) error {
	w := csv.NewWriter(out)
	rows := [][]string{{"seconds", "wave", "in_flight", "well", "bad"}}
	for _, p := range r.Points {
		rows = append(rows, []string{strconv.Itoa(int(p.At.Seconds())), strconv.Itoa(p.Wave), strconv.Itoa(p.Flight), strconv.Itoa(p.Well), strconv.Itoa(p.Faults)})
	}
	return w.WriteAll(rows)
}
