package hooks

import (
	"github.com/prometheus/client_golang/prometheus"

	"narwharf/hooks/api"
)

type metrics struct {
	requests *prometheus.CounterVec
	promoted *prometheus.CounterVec
	parked   prometheus.Gauge
	wakeups  prometheus.Counter
}

func newMetrics(s *Server, reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "narwharf_api_requests_total", Help: "Requests to /api/v1 answered, by route and status."}, []string{"route", "status"}),
		promoted: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "narwharf_channel_promotions_total", Help: "Releases promoted, by channel."}, []string{"channel"}),
		parked:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "narwharf_polls_parked", Help: "Polls that wait for a change."}),
		wakeups:  prometheus.NewCounter(prometheus.CounterOpts{Name: "narwharf_poll_wakeups_total", Help: "Times a parked poll was woken to look."}),
	}
	reg.MustRegister(m.requests, m.promoted, m.parked, m.wakeups, &fleetCollector{s})
	return m
}

// fleetCollector tells about channels and hosts when it is asked.
type fleetCollector struct{ s *Server }

var (
	seqDesc   = prometheus.NewDesc("narwharf_channel_seq", "Seq of the channel's last release.", []string{"channel"}, nil)
	hostsDesc = prometheus.NewDesc("narwharf_hosts", "Hosts by channel and the state that they declared.", []string{"channel", "state"}, nil)
	convDesc  = prometheus.NewDesc("narwharf_hosts_converged", "Hosts that run what their channel's last release has for them.", []string{"channel"}, nil)
	seenDesc  = prometheus.NewDesc("narwharf_host_last_seen_seconds", "Unix time of the last poll or report.", []string{"host"}, nil)
)

// Describe implements prometheus.Collector.
func (f *fleetCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{seqDesc, hostsDesc, convDesc, seenDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (f *fleetCollector) Collect(ch chan<- prometheus.Metric) {
	f.s.mu.RLock()
	for name, l := range f.s.channels {
		ch <- prometheus.MustNewConstMetric(seqDesc, prometheus.GaugeValue, float64(l.state.Seq), name)
	}
	f.s.mu.RUnlock()
	type key struct {
		channel string
		state   api.State
	}
	states := make(map[key]int)
	converged := make(map[string]int)
	hosts, _ := f.s.hosts("")
	for _, h := range hosts {
		ch <- prometheus.MustNewConstMetric(seenDesc, prometheus.GaugeValue, float64(h.LastSeen.Unix()), h.Host)
		if h.Status == nil {
			continue
		}
		states[key{h.Status.Channel, h.Status.State}]++
		if h.Converged {
			converged[h.Status.Channel]++
		}
	}
	for k, n := range states {
		ch <- prometheus.MustNewConstMetric(hostsDesc, prometheus.GaugeValue, float64(n), k.channel, string(k.state))
	}
	for c, n := range converged {
		ch <- prometheus.MustNewConstMetric(convDesc, prometheus.GaugeValue, float64(n), c)
	}
}
