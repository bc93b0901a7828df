package channels

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/host"
	"narwharf/hooks/rollout"
	"narwharf/hooks/series"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

// many is a channel with 10,000 hosts, of which no two neighbours are in the same state.
type many struct{ cells []rollout.Cell }

func newMany() *many {
	m := new(many)
	for i := range 10_000 {
		m.cells = append(m.cells, rollout.Cell{Host: fmt.Sprintf("web-%05d.frankfurt.example.org", i), Wave: 1 + i/3334, State: rollout.CellState("wbfaq"[i%5])})
	}
	return m
}

func (m *many) Cells(string) []rollout.Cell { return m.cells }

func (m *many) Glance(keep func(string) bool, each func(*host.Described)) {
	for i := 0; keep("web") && i < 3; i++ {
		d, _ := m.Describe(fmt.Sprintf("web-%05d", i))
		each(d)
	}
}

func (m *many) Describe(name string) (*host.Described, error) {
	exit := 4
	return &host.Described{Channel: "web", Host: api.Host{Host: name, WantedSeq: 2, WaitingFor: &api.Waiting{Kind: api.WaitWave, Detail: "500 hosts are in flight, and 500 may be"}, Status: &api.Status{Seq: 2, State: api.Reverted, SwitchExit: &exit,
		Checks: []api.Check{{Name: "http", Mode: api.Enforce, Detail: "connection 1234 from " + name[4:9] + " refused"}}}}}, nil
}

// ServeHTTP is the API.
func (m *many) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var body any
	switch req.URL.Path {
	case "/api/v1/channels":
		body = map[string]any{"channels": []api.Channel{{Channel: "web", Seq: 2}}}
	case "/api/v1/rollouts/web":
		if m.cells == nil {
			w.WriteHeader(http.StatusNotFound)
			body = api.Errorf(api.NotFound, "it has none")
			break
		}
		body = rollout.Summary{Channel: "web", Seq: 2, Rev: 7, Present: true, State: rollout.Running, Total: 10_000, Well: 2000, Bad: 2000, Waves: []rollout.WaveSummary{
			{Name: "canary", State: rollout.WavePassed, Size: 3334}, {Name: "half", State: rollout.WaveBaking, Size: 3334, Bakes: time.Unix(1e9, 0), Checks: map[string]rollout.Check{"error-rate": {OK: true, Detail: "0.1 < 1"}}}, {Name: "wave 3", State: rollout.WaveAhead},
		}, Waits: map[api.WaitKind]int{api.WaitWave: 2000}}
	default:
		w.WriteHeader(http.StatusNotFound)
		body = api.Errorf(api.NotFound, "there is none")
	}
	if err := json.NewEncoder(w).Encode(body); err != nil {
		panic(err)
	}
}

func (m *many) past(_ context.Context, group string, res series.Resolution) (*series.Table, error) {
	begin := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	of := func(name string, values ...float64) series.Values {
		return series.Values{Column: series.Column{Name: name, Gauge: true}, Values: values}
	}
	t := &series.Table{Step: res.Step, Begin: []time.Time{begin, begin.Add(res.Step), begin.Add(2 * res.Step)}}
	if group == series.Channel("web") {
		t.Columns = []series.Values{of("seq", math.NaN(), 1, 2), of("hosts.ok", math.NaN(), 8, 5), of("hosts.testing", math.NaN(), 0, 1), of("hosts.reverted", math.NaN(), 0, 2), of("hosts.armed", math.NaN(), 0, 0)}
	}
	return t, nil
}

func look(t *testing.T, m *many, path string) string {
	t.Helper()
	f := frame.New(frame.Options{
		Access: access.NewAuthenticator(access.Options{Anonymous: scope.Set{{Kind: scope.Operate}}}), API: m, Log: slog.New(slog.DiscardHandler), Clock: time.Now,
		Used: func(context.Context, *access.Principal) error { return nil },
	})
	f.Add(Room(Options{Rollouts: m, Hosts: m, Past: m.past}))
	rec := httptest.NewRecorder()
	f.ServeHTTP(rec, httptest.NewRequest("GET", path, http.NoBody))
	if rec.Code != 200 {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	return rec.Body.String()
}

// A page of a channel with 10,000 hosts in the worst order is less than 300 KB.
func TestManyHosts(t *testing.T) {
	text := look(t, newMany(), "/ui/channels/web")
	if t.Logf("%d bytes", len(text)); len(text) > 300_000 {
		t.Errorf("%d bytes", len(text))
	}
	for _, want := range []string{
		"Wave 2 of 3 (half)", "it bakes until 01:46:40 UTC", "check error-rate", "0.1 &lt; 1", "<strong>200 hosts</strong>", "the check http failed", "1800 hosts more ended badly",
		`"/ui/channels/web/pause?seq=2&amp;rev=7"`, `<title>(2000) web`, `data-shape="2/3"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if n := strings.Count(text, "<path"); n > 20 {
		t.Errorf("%d paths", n)
	}
	if got := look(t, newMany(), "/ui/channels/web/cell?at=3334&n=1"); !strings.Contains(got, "web-03335") || !strings.Contains(got, "500 hosts are in flight") {
		t.Errorf("a cell: %s", got)
	}
}

// A channel without roll-outs has its hosts as one drawing, each as it is; what is known of before is drawn.
func TestNoRollouts(t *testing.T) {
	text := look(t, new(many), "/ui/channels/web")
	for _, want := range []string{
		"has no roll-outs", `id="wave-all"`, `data-cells="b3"`, "<strong>3 hosts</strong>", "the check http failed", `<title>(3) web`, `cell=b"`,
		"Hosts by state", `well <b>6</b>`, `ended badly <b>2</b>`, "release 2", `href="?days=90#past"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %s", want, text)
		}
	}
	if strings.Contains(text, "wait for a reboot <b>") {
		t.Errorf("a line of nothing: %s", text)
	}
	if got := look(t, new(many), "/ui/channels/web/cell?at=0&n=1"); !strings.Contains(got, "web-00001") || !strings.Contains(got, "connection 1234") {
		t.Errorf("a cell: %s", got)
	}
}

func TestBack(t *testing.T) {
	item := func(seq int64, states ...string) release {
		r := release{HistoryItem: api.HistoryItem{Seq: seq, Meta: map[string]string{"rollback_url": "https://ci.example.org/1"}}}
		for _, s := range states {
			r.Hosts = append(r.Hosts, ended{api.State(s), 1, frame.Tone(api.State(s))})
		}
		return r
	}
	for _, c := range []struct {
		what string
		run  *rollout.Summary
		list []release
		want int64
	}{
		{"the last that completed well", &rollout.Summary{LastWell: 3}, []release{item(5), item(4, "ok"), item(3)}, 3},
		{"the present one is", &rollout.Summary{LastWell: 5}, []release{item(5), item(4, "reverted"), item(3, "ok")}, 3},
		{"by what hosts said", nil, []release{item(5), item(4, "ok", "failed"), item(3, "ok")}, 3},
		{"nothing is known", nil, []release{item(5), item(4)}, 4},
		{"there is no other", nil, []release{item(5)}, 0},
	} {
		s := &shown{Run: c.run, History: c.list, Present: &c.list[0]}
		s.back()
		if c.want == 0 && s.Back == nil {
			continue
		}
		if s.Back == nil || s.Back.Seq != c.want || s.Back.URL == "" {
			t.Errorf("%s: %+v", c.what, s.Back)
		}
	}
	for _, bad := range []string{"javascript:alert(1)", "//evil.example", "data:x", "ftp://a/b", "https:", ":"} {
		if link(bad) != "" {
			t.Errorf("%s is a link", bad)
		}
	}
}
