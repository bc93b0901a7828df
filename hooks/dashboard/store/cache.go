package store

import (
	"fmt"
	"html/template"
	"math"
	"strings"
	"time"

	"narwharf/hooks/api/retention"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/dashboard/plot"
	"narwharf/hooks/series"
	"narwharf/signing/access/scope"
)

// quick is up to how many uploads sizes are worked out without being asked for: all are looked through.
const quick = 20_000

// view is what the page of the cache shows.
type view struct {
	Long  bool // 90 days and not two
	Plots []template.HTML
	Hits  string // of lookups in the time shown, "" if there were none

	Senders []Sender
	Refused []Refusal

	Operates bool // collections, pins and why are shown
	Looks    bool // single paths are
	Status   *retention.Status
	Usage    *retention.Usage
	Ask      bool // Usage would take a while
	Pins     []retention.Pin
}

func (o *Options) cache(r *frame.Request) (*frame.Page, error) {
	v := &view{Long: r.Query.Get("days") == "90", Operates: r.Can(scope.Operate, ""), Looks: looks(r)}
	var err error
	if v.Senders, v.Refused, err = o.Uploads(r.Context()); err != nil {
		return nil, err
	}
	res := series.Fine
	if v.Long {
		res = series.Coarse
	}
	t, err := o.Past(r.Context(), series.CacheGroup, res)
	if err != nil {
		return nil, err
	}
	v.plot(t)
	if v.Operates {
		if err := r.Get("/api/v1/gc", &v.Status); err != nil {
			return nil, err
		}
		var pins struct {
			Pins []retention.Pin `json:"pins"`
		}
		if err := r.Get("/api/v1/pins", &pins); err != nil {
			return nil, err
		}
		v.Pins = pins.Pins[:min(len(pins.Pins), 100)]
	}
	v.Ask = paths(t) > quick && r.Query.Get("sizes") != "1"
	if !v.Ask {
		if err := r.Get("/api/v1/du", &v.Usage); err != nil {
			return nil, err
		}
		v.Usage.Of = v.Usage.Of[:min(len(v.Usage.Of), 200)]
	}
	return &frame.Page{Title: "Cache", Body: "cache", Data: v}, nil
}

// paths is how many the cache has, as far as is known.
func paths(t *series.Table) float64 {
	values, n := t.Get("paths").Values, 0.0
	for _, v := range values {
		if !math.IsNaN(v) {
			n = v
		}
	}
	return n
}

// plot draws what the page shows of the past.
func (v *view) plot(t *series.Table) {
	per := t.Step.Seconds()
	rate := func(c series.Values) []float64 { return scaled(c.Values, 1/per) }
	found, absent := t.Get("narinfo.200"), t.Get("narinfo.404")
	hit := make([]float64, len(found.Values))
	all, hits := 0.0, 0.0
	for i := range hit {
		yes, no := known(found.Values[i]), known(absent.Values[i])
		all, hits = all+yes+no, hits+yes
		if hit[i] = math.NaN(); yes+no > 0 {
			hit[i] = 100 * yes / (yes + no)
		}
	}
	if all > 0 {
		v.Hits = fmt.Sprintf("%.1f %% of %.0f lookups", 100*hits/all, all)
	}
	size := func(v float64) string { return frame.Bytes(int64(v)) }
	speed := func(v float64) string { return frame.Bytes(int64(v)) + "/s" }
	lines := []*plot.Lines{
		{ID: "size", Title: "Size", Last: true, Stacked: true, Binary: true, Unit: size, Series: []plot.Series{
			{Name: "uploads", Colour: 0, Values: t.Get("bytes").Values}, {Name: "copies that may go", Colour: 7, Values: t.Get("copies").Values},
		}},
		{ID: "sent", Title: "Bytes sent, by source", Stacked: true, Binary: true, Unit: speed, Series: sources(t, rate)},
		{ID: "hits", Title: "Lookups that found the path", Unit: func(v float64) string { return fmt.Sprintf("%.3g %%", v) }, Series: []plot.Series{{Name: "found", Colour: 2, Values: hit}}},
		{ID: "received", Title: "Bytes that came", Binary: true, Unit: speed, Series: []plot.Series{
			{Name: "uploads", Colour: 0, Values: rate(t.Get("received"))}, {Name: "from upstreams", Colour: 4, Values: rate(t.Get("pulled"))},
		}},
		{ID: "uploads", Title: "Uploads in an hour", Unit: few, Series: results(t)},
	}
	for _, l := range lines {
		l.Begin = t.Begin
		v.Plots = append(v.Plots, l.HTML())
	}
}

// few is a number that is small where nothing is wrong.
func few(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// scaled is what was counted by a factor. The last time is not over, so that what was counted in it says too little: it is left
// out where the one before is known.
func scaled(values []float64, by float64) []float64 {
	list := make([]float64, len(values))
	for i, v := range values {
		list[i] = v * by
	}
	if n := len(list); n > 1 && !math.IsNaN(list[n-2]) {
		list[n-1] = math.NaN()
	}
	return list
}

func known(v float64) float64 {
	if math.IsNaN(v) {
		return 0
	}
	return v
}

func sources(t *series.Table, rate func(series.Values) []float64) (list []plot.Series) {
	for i, name := range []string{"uploaded", "local", "upstream"} {
		list = append(list, plot.Series{Name: name, Colour: []int{0, 2, 4}[i], Values: rate(t.Get("sent." + name))})
	}
	return list
}

func results(t *series.Table) (list []plot.Series) {
	hours := float64(time.Hour / t.Step)
	for i, name := range []string{"ok", "refused", "failed"} {
		list = append(list, plot.Series{Name: name, Colour: []int{2, 3, 1}[i], Values: scaled(t.Get("uploads."+name).Values, hours)})
	}
	return list
}

// Channel is the channel of a share, "" if it is of none.
func (*view) Channel(name string) string {
	channel, ok := strings.CutPrefix(name, "channel:")
	if !ok {
		return ""
	}
	return channel
}
