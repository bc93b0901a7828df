package upstream

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are documented in docs/metrics.md.
type metrics struct {
	auto     promauto.Factory
	lookups  *prometheus.CounterVec
	pulls    *prometheus.CounterVec
	received *prometheus.CounterVec

	leaning, lost atomic.Int64 // as they were counted last
}

// What became of a lookup at one upstream.
const (
	lookedFound  = "found"
	lookedNone   = "none"
	lookedBad    = "bad"    // what it says does not count
	lookedFailed = "failed" // no answer in time, or one of a fault
	lookedDown   = "down"   // not asked: too many failed
	lookedBusy   = "busy"   // not asked: too many at once
)

// What became of a pull.
const (
	pulledOK        = "ok"
	pulledNone      = "none"
	pulledLied      = "lied" // the NAR is not what the narinfo says
	pulledFailed    = "failed"
	pulledCancelled = "cancelled"
)

func newMetrics(registry prometheus.Registerer) *metrics {
	auto := promauto.With(registry)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return auto.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		auto:     auto,
		lookups:  counter("narwharf_upstream_lookups_total", "Lookups of paths at upstreams, by result.", "upstream", "result"),
		pulls:    counter("narwharf_upstream_pulls_total", "NARs pulled from upstreams, by result.", "upstream", "result"),
		received: counter("narwharf_upstream_received_bytes_total", "Bytes of NAR files that came from upstreams.", "upstream"),
	}
	gauge := func(name, help string, value *atomic.Int64) {
		auto.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value.Load()) })
	}
	gauge("narwharf_leaning_paths", "Paths that uploaders were told to be here and that an upstream has, as counted last.", &m.leaning)
	gauge("narwharf_leaning_lost_paths", "Those of them that no upstream has any more.", &m.lost)
	return m
}

// of makes the numbers of an upstream.
func (m *metrics) of(u *Upstream) {
	for _, result := range []string{lookedFound, lookedNone, lookedBad, lookedFailed, lookedDown, lookedBusy} {
		m.lookups.WithLabelValues(u.String(), result)
	}
	for _, result := range []string{pulledOK, pulledNone, pulledLied, pulledFailed, pulledCancelled} {
		m.pulls.WithLabelValues(u.String(), result)
	}
	m.received.WithLabelValues(u.String())
	m.auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "narwharf_upstream_up", Help: "0 while an upstream is not asked, since requests to it failed.", ConstLabels: prometheus.Labels{"upstream": u.String()},
	}, func() float64 { return float64(1 - btoi(u.breaker.Down())) })
}

func (m *metrics) looked(u *Upstream, result string) {
	m.lookups.WithLabelValues(u.String(), result).Inc()
}

func (m *metrics) pulled(u *Upstream, result string, bytes int64) {
	m.pulls.WithLabelValues(u.String(), result).Inc()
	m.received.WithLabelValues(u.String()).Add(float64(bytes))
}
