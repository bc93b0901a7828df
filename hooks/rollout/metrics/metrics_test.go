package metrics

import (
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"narwharf/cache/state/memory"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/rollout"
)

// TestMetrics: what the driver has, what was decided since the start, and how long hosts took, of a
// promote before it, too.
func TestMetrics(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	set := mirror.NewSet(memory.New(func() time.Time { return now }), slog.New(slog.DiscardHandler))
	note := func(list ...api.Event) {
		t.Helper()
		err := set.Update(t.Context(), nil, func(tx *mirror.Tx) error {
			for _, e := range list {
				audit.Note(tx, e)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	well := func(host string, seq int64) api.Event {
		return api.Event{Kind: "host.state", Channel: "web", Host: host, Seq: seq, Data: map[string]string{"state": "ok"}}
	}
	note(api.Event{Kind: "channel.promoted", Channel: "web", Seq: 4}, api.Event{Kind: "rollout.halted", Channel: "web", Seq: 3}, well("web-9", 4))
	list := []rollout.Summary{{Channel: "web", Seq: 4, State: rollout.Running, Created: now, Total: 10, Well: 2, InFlight: 3, Bad: 1,
		Waves: []rollout.WaveSummary{{State: rollout.WavePassed}, {State: rollout.WaveOpen}, {State: rollout.WaveAhead}}}}
	m := New(Options{Set: set, List: func(func(string) bool) []rollout.Summary { return list }, Leads: func() bool { return true }, Log: slog.New(slog.DiscardHandler)})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	now = now.Add(7 * time.Second)
	note(api.Event{Kind: "rollout.hosts", Channel: "web", Seq: 4, Data: map[string]string{"granted": "3", "fault": "1"}}, api.Event{Kind: "rollout.halted", Channel: "web", Seq: 4},
		well("web-1", 4), well("web-1", 4), well("web-2", 3))
	now = now.Add(time.Minute)
	note(well("web-2", 4))
	page := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	var got []string
	for line := range strings.Lines(page.Body.String()) {
		if !strings.HasPrefix(line, "#") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	want := strings.Split(strings.TrimSpace(`
narwharf_promote_to_ok_seconds_bucket{channel="web",le="1"} 0
narwharf_promote_to_ok_seconds_bucket{channel="web",le="2"} 0
narwharf_promote_to_ok_seconds_bucket{channel="web",le="5"} 0
narwharf_promote_to_ok_seconds_bucket{channel="web",le="10"} 1
narwharf_promote_to_ok_seconds_bucket{channel="web",le="30"} 1
narwharf_promote_to_ok_seconds_bucket{channel="web",le="60"} 1
narwharf_promote_to_ok_seconds_bucket{channel="web",le="120"} 2
narwharf_promote_to_ok_seconds_bucket{channel="web",le="300"} 2
narwharf_promote_to_ok_seconds_bucket{channel="web",le="600"} 2
narwharf_promote_to_ok_seconds_bucket{channel="web",le="1800"} 2
narwharf_promote_to_ok_seconds_bucket{channel="web",le="3600"} 2
narwharf_promote_to_ok_seconds_bucket{channel="web",le="10800"} 2
narwharf_promote_to_ok_seconds_bucket{channel="web",le="43200"} 2
narwharf_promote_to_ok_seconds_bucket{channel="web",le="86400"} 2
narwharf_promote_to_ok_seconds_bucket{channel="web",le="259200"} 2
narwharf_promote_to_ok_seconds_bucket{channel="web",le="604800"} 2
narwharf_promote_to_ok_seconds_bucket{channel="web",le="+Inf"} 2
narwharf_promote_to_ok_seconds_sum{channel="web"} 74
narwharf_promote_to_ok_seconds_count{channel="web"} 2
narwharf_rollout_decisions_total{channel="web",decision="fault"} 1
narwharf_rollout_decisions_total{channel="web",decision="granted"} 3
narwharf_rollout_decisions_total{channel="web",decision="halted"} 1
narwharf_rollout_hosts{channel="web",phase="armed"} 0
narwharf_rollout_hosts{channel="web",phase="back"} 0
narwharf_rollout_hosts{channel="web",phase="bad"} 1
narwharf_rollout_hosts{channel="web",phase="in_flight"} 3
narwharf_rollout_hosts{channel="web",phase="left"} 0
narwharf_rollout_hosts{channel="web",phase="waiting"} 4
narwharf_rollout_hosts{channel="web",phase="well"} 2
narwharf_rollout_leads 1
narwharf_rollout_started_timestamp_seconds{channel="web"} 1.767323045e+09
narwharf_rollout_state{channel="web",state="running"} 1
narwharf_rollout_wave{channel="web"} 2
`), "\n")
	if !slices.Equal(got, want) {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
}
