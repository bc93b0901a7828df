package channels

import (
	"fmt"
	"html/template"
	"math"

	"narwharf/hooks/api"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/dashboard/plot"
	"narwharf/hooks/series"
)

// past is how the hosts of a channel were over time.
type past struct {
	Long bool // 90 days and not two
	Plot template.HTML
}

// share is hosts that are drawn as one area.
type share struct {
	name   string
	colour int
	has    func(s api.State) bool
}

// shares are the areas, from below. Each state is of the first one that has it.
var shares = []share{
	{"well", 2, func(s api.State) bool { return frame.Tone(s) == "good" }},
	{"waiting", 6, func(s api.State) bool { return s == api.Staged || s == api.WaitingState }},
	{"on their way", 0, func(s api.State) bool { return frame.Tone(s) == "busy" }},
	{"wait for a reboot", 3, func(s api.State) bool { return s == api.Armed }},
	{"drifted", 4, func(s api.State) bool { return s == api.Drifted }},
	{"ended badly", 1, func(s api.State) bool { return frame.Tone(s) == "bad" }},
	{"other", 7, func(api.State) bool { return true }},
}

func (m *room) past(r *frame.Request, name string) (*past, error) {
	p := &past{Long: r.Query.Get("days") == "90"}
	res := series.Fine
	if p.Long {
		res = series.Coarse
	}
	t, err := m.Past(r.Context(), series.Channel(name), res)
	if err != nil {
		return nil, err
	}
	p.Plot = draws(t).HTML()
	return p, nil
}

// draws is the plot of a channel's table: its hosts by state, and when its releases came.
func draws(t *series.Table) *plot.Lines {
	l := &plot.Lines{ID: "past", Title: "Hosts by state", Begin: t.Begin, Stacked: true, Last: true}
	sums := make([][]float64, len(shares))
	for _, column := range t.Prefixed("hosts.") {
		i := 0
		for !shares[i].has(api.State(column.Name)) {
			i++
		}
		if sums[i] == nil {
			sums[i] = make([]float64, len(t.Begin))
		}
		for at, v := range column.Values {
			sums[i][at] += v // of a time at which none is known none of them is
		}
	}
	for i, values := range sums {
		if some(values) {
			l.Series = append(l.Series, plot.Series{Name: shares[i].name, Colour: shares[i].colour, Values: values})
		}
	}
	seq := math.NaN()
	for at, v := range t.Get("seq").Values {
		if v != seq && !math.IsNaN(v) && !math.IsNaN(seq) {
			l.Marks = append(l.Marks, plot.Mark{At: t.Begin[at], Text: fmt.Sprintf("release %.0f", v)})
		}
		if !math.IsNaN(v) {
			seq = v
		}
	}
	return l
}

// some tells whether any value is more than 0.
func some(values []float64) bool {
	for _, v := range values {
		if v > 0 {
			return true
		}
	}
	return false
}
