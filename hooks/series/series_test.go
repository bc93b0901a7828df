package series

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/state"
	"narwharf/cache/state/memory"
	"narwharf/cache/state/statetest"
)

// world is a state with a clock of its own, and servers that write into it.
type world struct {
	t   *testing.T
	now time.Time
	st  state.Store
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	w.st = statetest.Twice(memory.New(func() time.Time { return w.now }))
	return w
}

// server is what one of them counts.
type server struct {
	*Recorder
	groups []Group
	failed error
}

func (w *world) server() *server {
	s := new(server)
	s.Recorder = New(w.st, func() ([]Group, error) { return s.groups, s.failed }, slog.New(slog.DiscardHandler))
	return s
}

func counter(name string, v float64) Value { return Value{Column{name, false}, v} }
func gauge(name string, v float64) Value   { return Value{Column{name, true}, v} }

// write writes the values of the cache and of channels that are only there.
func (w *world) write(s *server, channels string, values ...Value) {
	w.t.Helper()
	s.groups = []Group{{CacheGroup, values}}
	for _, c := range channels {
		s.groups = append(s.groups, Group{Channel(string(c)), []Value{gauge("hosts.ok", float64(c-'a'+1))}})
	}
	if _, err := s.Write(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// known are the values of a column that are known, as steps back from now: value.
func (w *world) known(group, column string, res Resolution) string {
	w.t.Helper()
	t, err := Read(w.t.Context(), w.st, group, res)
	if err != nil {
		w.t.Fatal(err)
	}
	text := ""
	for i, v := range t.Get(column).Values {
		if !math.IsNaN(v) {
			text += fmt.Sprintf("%d:%v ", i-len(t.Begin)+1, v)
		}
	}
	return text
}

func (w *world) is(group, column string, res Resolution, want string) {
	w.t.Helper()
	if got := w.known(group, column, res); got != want {
		w.t.Errorf("%s of %s in steps of %s: %q and not %q", column, group, res.Step, got, want)
	}
}

// TestCounters: a record is what was counted in its time, over restarts, kills and replicas.
func TestCounters(t *testing.T) {
	w := newWorld(t)
	s := w.server()
	w.write(s, "", counter("n", 100)) // since its start
	w.now = w.now.Add(5 * time.Minute)
	w.write(s, "", counter("n", 130))
	w.is("cache", "n", Fine, "-1:100 0:30 ")
	w.is("cache", "n", Coarse, "0:130 ")

	other := w.server() // another server, or this one after a restart
	w.write(other, "", counter("n", 7))
	w.is("cache", "n", Fine, "-1:100 0:37 ")
	w.write(other, "", counter("n", 3)) // it began anew without having told
	w.is("cache", "n", Fine, "-1:100 0:40 ")

	w.now = w.now.Add(time.Hour)
	w.write(s, "", counter("n", 130), counter("late", 5))
	w.is("cache", "n", Fine, "-13:100 -12:40 0:0 ")
	w.is("cache", "late", Fine, "0:5 ")
	w.is("cache", "n", Coarse, "-1:140 0:0 ")
}

// TestGauges: the last value counts; one that is not told of is 0, one that cannot be read is unknown.
func TestGauges(t *testing.T) {
	w := newWorld(t)
	s, other := w.server(), w.server()
	w.write(s, "", gauge("g", 5))
	w.write(other, "", gauge("g", 6), gauge("bad", 1))
	w.is("cache", "g", Fine, "0:6 ")
	w.now = w.now.Add(5 * time.Minute)
	w.write(s, "", gauge("bad", math.NaN()))
	w.is("cache", "g", Fine, "-1:6 0:0 ")
	w.is("cache", "bad", Fine, "-1:1 ")
	w.is("cache", "g", Coarse, "0:0 ")
}

// TestRing: what is older than two days is overwritten or not shown, and the hours stay.
func TestRing(t *testing.T) {
	w := newWorld(t)
	s := w.server()
	for i := range 600 {
		w.write(s, "", gauge("g", float64(i)))
		w.now = w.now.Add(5 * time.Minute)
	}
	tab, err := Read(t.Context(), w.st, CacheGroup, Fine)
	if err != nil {
		t.Fatal(err)
	}
	v := tab.Get("g").Values
	if len(v) != 576 || v[0] != 25 || v[574] != 599 || !math.IsNaN(v[575]) || !tab.Begin[575].Equal(w.now) {
		t.Errorf("%v … %v, %s", v[:2], v[573:], tab.Begin[575])
	}
	w.is("cache", "none", Fine, "")
	w.now = w.now.Add(49 * time.Hour)
	w.is("cache", "g", Fine, "")
	if tab, err = Read(t.Context(), w.st, CacheGroup, Coarse); err != nil || tab.Get("g").Values[2160-1-50] != 599 {
		t.Errorf("after two days: %v %v", tab.Get("g").Values[2050:], err)
	}
	entries := 0
	if err := w.st.Scan(t.Context(), "series/5m/cache", state.Range{}, func(page []state.Entry) error { entries += len(page); return nil }); err != nil || entries != 576 {
		t.Errorf("%d records are kept, %v", entries, err)
	}
}

// TestClockSteps: a clock that was ahead shows nothing of the future, and what is counted again at a time
// is added to what was counted at it.
func TestClockSteps(t *testing.T) {
	w := newWorld(t)
	s := w.server()
	w.write(s, "", counter("n", 10), gauge("g", 1))
	w.now = w.now.Add(24 * time.Hour)
	w.write(s, "", counter("n", 15), gauge("g", 2))
	w.now = w.now.Add(-24 * time.Hour)
	w.is("cache", "n", Fine, "0:10 ")
	w.write(s, "", counter("n", 18), gauge("g", 3))
	w.is("cache", "n", Fine, "0:13 ")
	w.is("cache", "g", Fine, "0:3 ")
	w.now = w.now.Add(48 * time.Hour) // the same place in the ring
	w.is("cache", "n", Fine, "-288:5 ")
	w.write(s, "", counter("n", 20), gauge("g", 4))
	w.is("cache", "n", Fine, "-288:5 0:2 ")
	w.now = time.Unix(0, 0).Add(-time.Hour) // before 1970
	w.write(s, "", counter("n", 21))
}

// TestChannelsGo: a channel that is deleted leaves nothing, and a new one of its name begins anew.
func TestChannelsGo(t *testing.T) {
	w := newWorld(t)
	s := w.server()
	w.write(s, "ab")
	w.is("channel/a", "hosts.ok", Fine, "0:1 ")
	w.write(s, "b")
	w.is("channel/a", "hosts.ok", Fine, "")
	w.is("channel/b", "hosts.ok", Fine, "0:2 ")
	w.now = w.now.Add(5 * time.Minute)
	w.write(s, "ab")
	w.is("channel/a", "hosts.ok", Fine, "0:1 ")
	w.is("channel/a", "hosts.ok", Coarse, "0:1 ")
}

// TestBounds: no more groups and columns than there may be; those that are there go on.
func TestBounds(t *testing.T) {
	w := newWorld(t)
	s := w.server()
	for i := range MaxGroups + 10 {
		g := Group{Name: fmt.Sprintf("channel/%03d", i)}
		for j := range MaxColumns + 10 {
			g.Values = append(g.Values, gauge(fmt.Sprintf("c%03d", j), 1))
		}
		s.groups = append(s.groups, g)
	}
	if _, err := s.Write(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.groups = append([]Group{{"channel/+", []Value{gauge("c", 1)}}}, s.groups...) // sorts before them
	if _, err := s.Write(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.is("channel/127", "c063", Fine, "0:1 ")
	for _, c := range [][2]string{{"channel/128", "c000"}, {"channel/+", "c"}, {"channel/000", "c064"}} {
		w.is(c[0], c[1], Fine, "")
	}
}

// failing fails the next Update after it has, or has not, written.
type failing struct {
	state.Store
	err     error
	written bool
}

func (f *failing) Update(ctx context.Context, locks []string, fn func(tx state.Tx) error) error {
	if f.err == nil {
		return f.Store.Update(ctx, locks, fn)
	}
	err := f.err
	f.err = nil
	fails := errors.New("rolled back")
	_ = f.Store.Update(ctx, locks, func(tx state.Tx) error {
		if err := fn(tx); err != nil || f.written {
			return err
		}
		return fails
	})
	return err
}

// TestWriteFails: what was not written comes with the next record, and nothing is counted twice.
func TestWriteFails(t *testing.T) {
	for _, c := range []struct {
		err     error
		written bool
		want    string
	}{
		{state.ErrUnavailable, false, "-1:10 0:7 "},
		{state.ErrUncertain, true, "-1:15 0:2 "},
		{state.ErrUncertain, false, "-1:10 0:2 "},
	} {
		w := newWorld(t)
		f := &failing{Store: w.st}
		w.st = f
		s := w.server()
		w.write(s, "", counter("n", 10))
		f.err, f.written = c.err, c.written
		s.groups[0].Values[0].Now = 15
		if _, err := s.Write(t.Context()); !errors.Is(err, c.err) {
			t.Fatal(err)
		}
		w.now = w.now.Add(5 * time.Minute)
		w.write(s, "", counter("n", 17))
		w.is("cache", "n", Fine, c.want)
	}
}

// TestDamaged: what cannot be read is begun anew.
func TestDamaged(t *testing.T) {
	w := newWorld(t)
	s := w.server()
	w.write(s, "", gauge("g", 1))
	put := func(bucket, key, value string) {
		if err := w.st.Update(t.Context(), nil, func(tx state.Tx) error { return tx.Put(bucket, key, []byte(value)) }); err != nil {
			t.Fatal(err)
		}
	}
	slot := Fine.slot(w.now)
	put("series/5m/cache", state.Uint64Key(uint64(slot%Fine.Slots)), "short")
	w.is("cache", "g", Fine, "")
	w.write(s, "", gauge("g", 2))
	w.is("cache", "g", Fine, "0:2 ")
	put("series/columns", "cache", "{")
	w.write(s, "", gauge("g", 3))
	w.is("cache", "g", Fine, "0:3 ")
}

// TestRun: a write at once and some soon after, one shortly before the end of each five minutes, and one at the end.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(7 * time.Minute) // it does not begin with a slot
		st := memory.New(nil)
		var at []string
		r := New(st, func() ([]Group, error) {
			at = append(at, time.Now().UTC().Format("04:05"))
			if len(at) == 6 {
				return nil, errors.New("once")
			}
			return []Group{{CacheGroup, []Value{counter("n", float64(len(at)))}}}, nil
		}, slog.New(slog.DiscardHandler))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.Run(ctx) }()
		time.Sleep(14 * time.Minute)
		stop()
		<-done
		if want := []string{"07:00", "07:15", "07:45", "08:45", "09:50", "13:50", "18:50", "19:50", "21:00"}; !slices.Equal(at, want) {
			t.Errorf("written at %v", at)
		}
		tab, err := Read(t.Context(), st, CacheGroup, Fine)
		if v := tab.Get("n").Values[572:]; err != nil || v[0] != 5 || !math.IsNaN(v[1]) || v[2] != 3 || v[3] != 1 {
			t.Errorf("%v %v", v, err)
		}
	})
}

// TestFromMetrics: of what /metrics shows.
func TestFromMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	vec := func(name string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name}, labels)
		reg.MustRegister(v)
		return v
	}
	set := func(name string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name}, labels)
		reg.MustRegister(v)
		return v
	}
	requests := vec("narwharf_http_requests_total", "route", "method", "status")
	requests.WithLabelValues("narinfo", "GET", "200").Add(5)
	requests.WithLabelValues("narinfo", "HEAD", "200").Add(1)
	requests.WithLabelValues("narinfo", "GET", "404").Add(2)
	requests.WithLabelValues("nar", "GET", "200").Add(3)
	vec("narwharf_http_sent_bytes_total", "route", "source").WithLabelValues("nar", "uploaded").Add(1e12)
	set("narwharf_cache_paths").WithLabelValues().Set(-1)
	set("narwharf_channel_seq", "channel").WithLabelValues("web").Set(4)
	hosts := set("narwharf_hosts", "channel", "state")
	hosts.WithLabelValues("web", "ok").Set(3)
	hosts.WithLabelValues("gone", "ok").Set(3)
	groups, err := FromMetrics(reg)()
	if err != nil || len(groups) != 2 {
		t.Fatal(groups, err)
	}
	want := "[{cache [{{narinfo.200 false} 6} {{narinfo.404 false} 2} {{paths true} NaN} {{requests false} 11} {{sent.uploaded false} 1e+12}]} " +
		"{channel/web [{{hosts.ok true} 3} {{seq true} 4}]}]"
	if got := fmt.Sprint(groups); got != want {
		t.Errorf("%s\nand not\n%s", got, want)
	}
}

// TestPicksAreMetrics: the metrics that are picked stand in the docs, which tests compare with a server.
func TestPicksAreMetrics(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range slices.Concat(ofCache, ofChannel) {
		if !strings.Contains(string(text), "| `"+prefix+p.metric+"` |") {
			t.Errorf("docs/metrics.md has no %s", prefix+p.metric)
		}
	}
}
