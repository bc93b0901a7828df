package plot

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strings"
	"time"
)

// Lines is numbers over time: lines, or areas that stand on each other. All have a value for each of Begin; NaN
// is not known, and leaves a gap.
type Lines struct {
	ID      string // of letters, digits and -, and no other's on the page
	Title   string
	Begin   []time.Time // evenly spaced, oldest first
	Series  []Series
	Stacked bool
	Last    bool // of values that are drawn as one, the last counts; else their mean
	Binary  bool // Unit speaks of powers of 1024
	Unit    func(v float64) string
	Marks   []Mark // upright lines
}

// Mark is something that happened.
type Mark struct {
	At   time.Time
	Text string
}

// Series is one of the numbers. Colour is one of 8, from 0.
type Series struct {
	Name   string
	Colour int
	Values []float64
}

// What is drawn at most, and what a table shows. The plot is stretched to the width that there is.
const (
	maxPoints = 288
	maxRows   = 24
	width     = 1000
	height    = 200
	ticks     = 4
	labels    = 5
)

// HTML is the plot as a figure: what it shows in words, the drawing, a legend with the values of now, and a
// table. Numbers of which no value is known are left out.
func (l *Lines) HTML() template.HTML {
	var b strings.Builder
	some := *l
	some.Series = slices.DeleteFunc(slices.Clone(l.Series), func(s Series) bool { return math.IsNaN(s.last()) })
	l = some.recent()
	p := l.thin(maxPoints)
	fmt.Fprintf(&b, `<figure class="plot" id="%s"><figcaption>%s</figcaption>`, html.EscapeString(l.ID), html.EscapeString(l.Title))
	if len(p.Series) == 0 {
		b.WriteString(`<p class="soft">Nothing is recorded yet: the first numbers come within five minutes.</p></figure>`)
		return template.HTML(b.String()) //nolint:gosec // all of it is escaped
	}
	top := p.top()
	b.WriteString(`<div class="lines"><div class="ticks" aria-hidden="true">`)
	for i := ticks; i >= 0; i-- {
		fmt.Fprintf(&b, `<span>%s</span>`, html.EscapeString(l.unit(top*float64(i)/ticks)))
	}
	b.WriteString(`</div>`)
	p.draw(&b, top)
	b.WriteString(`<div class="times" aria-hidden="true">`)
	for i := range labels {
		at := l.Begin[i*(len(l.Begin)-1)/(labels-1)]
		layout := "15:04"
		if l.span() > 3*24*time.Hour {
			layout = "Jan 2"
		}
		fmt.Fprintf(&b, `<span>%s</span>`, at.UTC().Format(layout))
	}
	b.WriteString(`</div></div><ul class="key">`)
	for _, s := range l.Series {
		last := s.last()
		fmt.Fprintf(&b, `<li><i class="p%d"></i>%s <b>%s</b></li>`, s.Colour%8, html.EscapeString(s.Name), html.EscapeString(l.unit(last)))
	}
	b.WriteString(`</ul>`)
	l.thin(maxRows).table(&b)
	b.WriteString(`</figure>`)
	return template.HTML(b.String()) //nolint:gosec // all of it is escaped
}

// atLeast is how many times are shown where less is known.
const atLeast = 12

// recent is the same without the times at the beginning of which nothing is known.
func (l *Lines) recent() *Lines {
	first := len(l.Begin)
	for _, s := range l.Series {
		first = min(first, slices.IndexFunc(s.Values, func(v float64) bool { return !math.IsNaN(v) }))
	}
	first = max(min(first-1, len(l.Begin)-atLeast), 0)
	r := *l
	r.Begin, r.Series = l.Begin[first:], make([]Series, len(l.Series))
	for i, s := range l.Series {
		r.Series[i] = Series{Name: s.Name, Colour: s.Colour, Values: s.Values[first:]}
	}
	return &r
}

func (l *Lines) span() time.Duration { return l.Begin[len(l.Begin)-1].Sub(l.Begin[0]) }

func (l *Lines) unit(v float64) string {
	switch {
	case math.IsNaN(v):
		return "unknown"
	case l.Unit == nil:
		return fmt.Sprintf("%.4g", v)
	}
	return l.Unit(v)
}

// last is the last value that is known, NaN if none is.
func (s *Series) last() float64 {
	for i := len(s.Values) - 1; i >= 0; i-- {
		if !math.IsNaN(s.Values[i]) {
			return s.Values[i]
		}
	}
	return math.NaN()
}

// thin is the same of at most n times.
func (l *Lines) thin(n int) *Lines {
	step := (len(l.Begin) + n - 1) / n
	if step <= 1 {
		return l
	}
	t := *l
	t.Begin, t.Series = nil, make([]Series, len(l.Series))
	for i := 0; i < len(l.Begin); i += step {
		t.Begin = append(t.Begin, l.Begin[i])
	}
	for i, s := range l.Series {
		t.Series[i] = Series{Name: s.Name, Colour: s.Colour}
		for j := 0; j < len(l.Begin); j += step {
			t.Series[i].Values = append(t.Series[i].Values, l.one(s.Values[j:min(j+step, len(s.Values))]))
		}
	}
	return &t
}

// one is what stands for some values.
func (l *Lines) one(values []float64) float64 {
	sum, n := 0.0, 0
	for _, v := range values {
		switch {
		case math.IsNaN(v):
		case l.Last:
			sum, n = v, 1
		default:
			sum, n = sum+v, n+1
		}
	}
	if n == 0 {
		return math.NaN()
	}
	return sum / float64(n)
}

// top is the value at the upper edge: four even steps of round numbers.
func (l *Lines) top() float64 {
	largest := 0.0
	for i := range l.Begin {
		sum := 0.0
		for _, s := range l.Series {
			v := zero(s.Values[i])
			if sum += v; !l.Stacked {
				sum = v
			}
			largest = max(largest, sum)
		}
	}
	if largest == 0 {
		return ticks
	}
	base := 10.0
	rounds := []float64{1, 2, 2.5, 5, 10}
	if l.Binary {
		base, rounds = 1024, []float64{1, 2, 5, 10, 20, 25, 50, 100, 200, 256, 512, 1024}
	}
	step := largest / ticks
	unit := math.Pow(base, math.Floor(math.Log(step)/math.Log(base)))
	for _, r := range rounds {
		if r*unit >= step {
			return r * unit * ticks
		}
	}
	return rounds[len(rounds)-1] * unit * ticks
}

func zero(v float64) float64 {
	if math.IsNaN(v) {
		return 0
	}
	return v
}

// draw draws.
func (l *Lines) draw(b *strings.Builder, top float64) {
	id := html.EscapeString(l.ID)
	fmt.Fprintf(b, `<svg viewBox="0 0 %d %d" preserveAspectRatio="none" role="img" aria-labelledby="%s-title %s-about"><title id="%s-title">%s</title><desc id="%s-about">%s</desc>`,
		width, height, id, id, id, html.EscapeString(l.Title), id, html.EscapeString(l.about()))
	b.WriteString(`<path class="rule" d="`)
	for i := range ticks + 1 {
		fmt.Fprintf(b, "M0 %dH%d", i*height/ticks, width)
	}
	b.WriteString(`"/>`)
	y := func(v float64) int { return height - int(math.Round(v/top*height)) }
	below := make([]float64, len(l.Begin))
	for _, s := range l.Series {
		var d string
		if l.Stacked {
			d = l.area(s.Values, below, y)
		} else {
			d = l.line(s.Values, y)
		}
		if d != "" {
			fmt.Fprintf(b, `<path class="p%d" d="%s"><title>%s</title></path>`, s.Colour%8, d, html.EscapeString(s.Name))
		}
	}
	for _, m := range l.Marks {
		fmt.Fprintf(b, `<path class="mark" d="M%d 0V%d"><title>%s</title></path>`, int(float64(width)*float64(m.At.Sub(l.Begin[0]))/max(float64(l.span()), 1)), height, html.EscapeString(m.Text))
	}
	b.WriteString(`</svg>`)
}

func (l *Lines) x(i int) int { return i * width / max(len(l.Begin)-1, 1) }

// line is a path that has gaps; a value between two of them is a short stroke.
func (l *Lines) line(values []float64, y func(float64) int) string {
	var d strings.Builder
	open := false
	for i, v := range values {
		if math.IsNaN(v) {
			open = false
			continue
		}
		if !open {
			fmt.Fprintf(&d, "M%d %dh1", l.x(i), y(v))
		} else {
			fmt.Fprintf(&d, "L%d %d", l.x(i), y(v))
		}
		open = true
	}
	return d.String()
}

// area is a path around what stands on below, to which it is added.
func (l *Lines) area(values, below []float64, y func(float64) int) string {
	var d strings.Builder
	for from := 0; from < len(values); from++ {
		to := from
		for to < len(values) && !math.IsNaN(values[to]) {
			to++
		}
		if to == from {
			continue
		}
		for i := from; i < to; i++ {
			fmt.Fprintf(&d, "%s%d %d", map[bool]string{true: "M", false: "L"}[i == from], l.x(i), y(below[i]+values[i]))
		}
		if to == from+1 {
			fmt.Fprintf(&d, "h1V%dh-1", y(below[from]))
		}
		for i := to - 1; i >= from; i-- {
			fmt.Fprintf(&d, "L%d %d", l.x(i), y(below[i]))
			below[i] += values[i]
		}
		d.WriteString("Z")
		from = to
	}
	return d.String()
}

// about says the plot in words.
func (l *Lines) about() string {
	var b strings.Builder
	fmt.Fprintf(&b, "From %s to %s.", stamp(l.Begin[0]), stamp(l.Begin[len(l.Begin)-1]))
	for _, s := range l.Series {
		low, high := math.NaN(), math.NaN()
		for _, v := range s.Values {
			if !math.IsNaN(v) && !(low <= v) {
				low = v
			}
			if !math.IsNaN(v) && !(high >= v) {
				high = v
			}
		}
		fmt.Fprintf(&b, " %s: now %s, between %s and %s.", s.Name, l.unit(s.last()), l.unit(low), l.unit(high))
	}
	for _, m := range l.Marks[max(len(l.Marks)-labels, 0):] {
		fmt.Fprintf(&b, " %s: %s.", stamp(m.At), m.Text)
	}
	return b.String()
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// table is the numbers for those who do not look at drawings.
func (l *Lines) table(b *strings.Builder) {
	b.WriteString(`<details><summary>As a table</summary><div class="scroll" role="region" aria-label="`)
	b.WriteString(html.EscapeString(l.Title) + `, as a table" tabindex="0"><table><thead><tr><th scope="col">from</th>`)
	for _, s := range l.Series {
		fmt.Fprintf(b, `<th scope="col" class="num">%s</th>`, html.EscapeString(s.Name))
	}
	b.WriteString(`</tr></thead><tbody>`)
	for i := len(l.Begin) - 1; i >= 0; i-- {
		fmt.Fprintf(b, `<tr><th scope="row"><time datetime="%s">%s</time></th>`, l.Begin[i].UTC().Format(time.RFC3339), stamp(l.Begin[i]))
		for _, s := range l.Series {
			text := ""
			if v := s.Values[i]; !math.IsNaN(v) {
				text = l.unit(v)
			}
			fmt.Fprintf(b, `<td class="num">%s</td>`, html.EscapeString(text))
		}
		b.WriteString(`</tr>`)
	}
	b.WriteString(`</tbody></table></div></details>`)
}
