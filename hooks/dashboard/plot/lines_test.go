package plot

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"
)

func at(n int) (list []time.Time) {
	for i := range n {
		list = append(list, time.Date(2026, 3, 1, 0, 5*i, 0, 0, time.UTC))
	}
	return list
}

// wellFormed fails where the text is not XML, which what we write is as well.
func wellFormed(t *testing.T, text string) {
	t.Helper()
	for d := xml.NewDecoder(strings.NewReader("<x>" + text + "</x>")); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
	}
}

// TestLines: paths, gaps, a legend and a table.
func TestLines(t *testing.T) {
	nan := math.NaN()
	l := &Lines{ID: "hosts", Title: "Hosts", Begin: at(5), Last: true, Series: []Series{{"ok", 0, []float64{0, 4, nan, 8, 6}}, {"failed", 1, []float64{nan, nan, 1, nan, nan}}}}
	text := string(l.HTML())
	wellFormed(t, text)
	for _, want := range []string{
		`d="M0 200h1L250 100M750 0h1L1000 50"`, `d="M500 175h1"`, `<i class="p0"></i>ok <b>6</b>`, `<i class="p1"></i>failed <b>1</b>`,
		"ok: now 6, between 0 and 8.", "failed: now 1, between 1 and 1.", `<span>8</span><span>6</span><span>4</span><span>2</span><span>0</span>`,
		`<tr><th scope="row"><time datetime="2026-03-01T00:20:00Z">2026-03-01 00:20 UTC</time></th><td class="num">6</td><td class="num"></td></tr>`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
	l.Stacked = true
	if text = string(l.HTML()); !strings.Contains(text, `d="M0 200L250 100L250 200L0 200ZM750 0L1000 50L1000 200L750 200Z"`) || !strings.Contains(text, `d="M500 175h1V200h-1L500 200Z"`) {
		t.Errorf("stacked: %s", text)
	}
	wellFormed(t, text)
	l.Series = []Series{{"a", 0, []float64{1, 1, 1, 1, 1}}, {"b", 1, []float64{3, 3, 3, 3, 3}}}
	if text = string(l.HTML()); !strings.Contains(text, `d="M0 150L250 150L500 150L750 150L1000 150L1000 200L750 200L500 200L250 200L0 200Z"`) || !strings.Contains(text, `d="M0 0L250 0L500 0L750 0L1000 0L1000 150L750 150L500 150L250 150L0 150Z"`) {
		t.Errorf("on each other: %s", text)
	}
}

// TestLinesAreBounded: however many values there are, what is drawn is small; means of rates, the last of gauges.
func TestLinesAreBounded(t *testing.T) {
	l := &Lines{ID: "x", Title: "x", Begin: at(2160), Series: []Series{{Name: "n", Values: make([]float64, 2160)}}}
	for i := range l.Series[0].Values {
		l.Series[0].Values[i] = float64(i % 8)
	}
	mean := l.thin(maxPoints)
	if text := string(l.HTML()); len(mean.Begin) != 270 || mean.Series[0].Values[0] != 3.5 || len(text) > 8<<10 || strings.Count(text, "<tr>") > maxRows+1 {
		t.Errorf("%d points, %d bytes", len(mean.Begin), len(text))
	}
	l.Last = true
	if last := l.thin(maxPoints); last.Series[0].Values[0] != 7 {
		t.Errorf("%v", last.Series[0].Values[:3])
	}
}

// TestLinesEdges: nothing known, nothing but zeros, one value, huge ones, nasty names.
func TestLinesEdges(t *testing.T) {
	nasty := `</title><script>alert(1)</script>"'&`
	for name, values := range map[string][]float64{
		"nothing": {math.NaN(), math.NaN()}, "zeros": {0, 0}, "one": {math.NaN(), 5}, "huge": {1e18, 9e18}, "tiny": {1e-3, 0},
	} {
		l := &Lines{ID: nasty, Title: nasty, Begin: at(2), Series: []Series{{nasty, 99, values}}, Unit: func(v float64) string { return fmt.Sprintf("<%g>", v) }}
		for _, l.Stacked = range []bool{true, false} {
			text := string(l.HTML())
			wellFormed(t, text)
			if strings.Contains(text, "<script") || strings.Contains(text, "NaN") || strings.Contains(text, "Inf") || strings.Contains(text, "style=") {
				t.Errorf("%s: %s", name, text)
			}
			if name == "nothing" != strings.Contains(text, "Nothing is recorded yet") {
				t.Errorf("%s: %s", name, text)
			}
		}
	}
	empty := &Lines{ID: "x", Title: "x"}
	wellFormed(t, string(empty.HTML()))
	l := &Lines{Binary: true, Begin: at(1), Series: []Series{{Values: []float64{3 << 30}}}}
	if top := l.top(); top != 4<<30 {
		t.Errorf("the top of 3 GiB is %v", top)
	}
}

// What is known for a short while alone is drawn as wide as what is known for long; what happened is where it happened.
func TestRecent(t *testing.T) {
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	l := Lines{ID: "x", Title: "Hosts", Series: []Series{{Name: "well", Values: make([]float64, 576)}}}
	for i := range 576 {
		l.Begin = append(l.Begin, begin.Add(time.Duration(i)*5*time.Minute))
		l.Series[0].Values[i] = math.NaN()
	}
	l.Series[0].Values[575] = 3
	l.Marks = []Mark{{At: l.Begin[570], Text: "release <2>"}}
	text := string(l.HTML())
	for _, want := range []string{`<span>23:00</span>`, `<span>23:55</span>`, `<title>release &lt;2&gt;</title>`, `class="mark" d="M545 0V200"`, "2026-03-02 23:30 UTC: release"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %s", want, text)
		}
	}
	l.Series[0].Values[1] = 4
	if text := string(l.HTML()); !strings.Contains(text, `<span>00:00</span>`) {
		t.Errorf("all of it: %s", text)
	}
}
