package hooks

import (
	"github.com/prometheus/client_golang/prometheus"

	rollouts "narwharf/hooks/rollout/metrics"
)

type metrics struct {
	requests *prometheus.CounterVec
	promoted *prometheus.CounterVec
}

// newMetrics registers them; each host has some of its own, if ofHosts is true.
func newMetrics(s *Server, reg prometheus.Registerer, ofHosts bool) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "narwharf_api_requests_total", Help: "Requests to /api/v1 answered, by route and status."}, []string{"route", "status"}),
		promoted: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "narwharf_channel_promotions_total", Help: "Releases promoted, by channel."}, []string{"channel"}),
	}
	reg.MustRegister(m.requests, m.promoted, s.Fleet.Metrics(ofHosts), s.Alarms, s.notify, s.checks.Set,
		rollouts.New(rollouts.Options{Set: s.set, List: s.Rollouts.List, Leads: func() bool { return s.Rollouts.State().Leads }, Log: s.log}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "narwharf_polls_parked", Help: "Polls that wait for a change."},
			func() float64 { return float64(s.shared.Polls.Count().Waiting) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "narwharf_polls_detached", Help: "Those of them that wait outside of net/http."},
			func() float64 { return float64(s.shared.Polls.Count().Detached) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "narwharf_poll_wakeups_total", Help: "Times a parked poll was woken to look."},
			func() float64 { return float64(s.shared.Polls.Count().Woken) }))
	return m
}
