// Package metrics shows to Prometheus how roll-outs go: the present ones of each channel from the
// driver, and what was decided and how long hosts took from the audit log, which is read on when
// somebody asks. Numbers of the log begin with the server; servers that share a state show the same.
package metrics

import (
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/rollout"
)

// Options of New.
type Options struct {
	Set *mirror.Set
	// List is the present roll-outs of channels that keep says yes to.
	List func(keep func(channel string) bool) []rollout.Summary
	// Leads tells whether this server is the one that drives roll-outs.
	Leads func() bool
	Log   *slog.Logger
}

const (
	lookBack    = 20_000 // ids before the server's start in which promotes are looked for
	maxReleases = 10_000 // that promotes are known of
	maxHosts    = 200_000
)

type release struct {
	channel string
	seq     int64
}

// Metrics is a prometheus.Collector.
type Metrics struct {
	o         Options
	decisions *prometheus.CounterVec
	took      *prometheus.HistogramVec

	mu       sync.Mutex
	next     int64 // id of the event to read on from; 0: not known yet
	began    int64 // id before which nothing counts
	promoted map[release]time.Time
	order    []release        // of promoted, the oldest first
	well     map[string]int64 // hosts by the last release that they were well on
}

var (
	stateDesc   = prometheus.NewDesc("narwharf_rollout_state", "1 for the state that the roll-out of a channel is in.", []string{"channel", "state"}, nil)
	hostsDesc   = prometheus.NewDesc("narwharf_rollout_hosts", "Hosts that the roll-out of a channel has to change, by what became of them.", []string{"channel", "phase"}, nil)
	waveDesc    = prometheus.NewDesc("narwharf_rollout_wave", "The last wave that was opened, from 1; 0: none was.", []string{"channel"}, nil)
	startedDesc = prometheus.NewDesc("narwharf_rollout_started_timestamp_seconds", "Unix time at which the roll-out began.", []string{"channel"}, nil)
	leadsDesc   = prometheus.NewDesc("narwharf_rollout_leads", "1 if this server drives roll-outs, else 0.", nil, nil)
)

// New makes one that is to be registered.
func New(o Options) *Metrics {
	m := &Metrics{
		o: o, promoted: make(map[release]time.Time), well: make(map[string]int64),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "narwharf_rollout_decisions_total", Help: "What was decided about roll-outs and their hosts."}, []string{"channel", "decision"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "narwharf_promote_to_ok_seconds", Help: "From the promote of a release until a host said that it is well on it.",
			Buckets: []float64{1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 3 * 3600, 12 * 3600, 24 * 3600, 3 * 24 * 3600, 7 * 24 * 3600}}, []string{"channel"}),
	}
	if err := m.begin(); err != nil { // it is tried again
		o.Log.Error("metrics of roll-outs: the audit log cannot be read", "error", err)
	}
	return m
}

// begin finds out where the log is now.
func (m *Metrics) begin() error {
	newest, err := audit.Newest(m.o.Set)
	if err == nil {
		m.next, m.began = max(newest-lookBack, 0)+1, newest+1
	}
	return err
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{stateDesc, hostsDesc, waveDesc, startedDesc, leadsDesc} {
		to <- d
	}
	m.decisions.Describe(to)
	m.took.Describe(to)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	gauge := func(of *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(of, prometheus.GaugeValue, value, labels...)
	}
	for _, s := range m.o.List(func(string) bool { return true }) {
		gauge(stateDesc, 1, s.Channel, string(s.State))
		waves := 0
		for i, w := range s.Waves {
			if w.State != rollout.WaveAhead {
				waves = i + 1
			}
		}
		gauge(waveDesc, float64(waves), s.Channel)
		gauge(startedDesc, float64(s.Created.Unix()), s.Channel)
		rest := s.Total
		for phase, n := range map[string]int{"well": s.Well, "in_flight": s.InFlight, "armed": s.Armed, "bad": s.Bad, "back": s.Back, "left": s.Left} {
			gauge(hostsDesc, float64(n), s.Channel, phase)
			rest -= n
		}
		gauge(hostsDesc, float64(max(rest, 0)), s.Channel, "waiting")
	}
	leads := 0.0
	if m.o.Leads() {
		leads = 1
	}
	gauge(leadsDesc, leads)
	if err := m.read(); err != nil {
		m.o.Log.Error("metrics of roll-outs are behind the audit log", "error", err)
	}
	m.decisions.Collect(to)
	m.took.Collect(to)
}

// read reads the log to its end.
func (m *Metrics) read() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.next == 0 {
		if err := m.begin(); err != nil {
			return err
		}
	}
	for {
		_, next, err := audit.Since(m.o.Set, m.next, 1, func(e *api.Event) bool { m.count(e); return false })
		if err != nil || next == m.next {
			return err
		}
		m.next = next
	}
}

// count takes an event into account.
func (m *Metrics) count(e *api.Event) {
	of := release{e.Channel, e.Seq}
	if e.Kind == "channel.promoted" {
		m.keep(of, e.Time)
	}
	if e.ID < m.began {
		return
	}
	what, ours := strings.CutPrefix(e.Kind, "rollout.")
	switch {
	case what == "hosts" && ours:
		for decision, n := range e.Data {
			if n, err := strconv.Atoi(n); err == nil && n > 0 {
				m.decisions.WithLabelValues(e.Channel, decision).Add(float64(n))
			}
		}
	case ours:
		m.decisions.WithLabelValues(e.Channel, what).Inc()
	case e.Kind == "host.state" && e.Data["state"] == string(api.OK) && m.well[e.Host] != e.Seq:
		if len(m.well) >= maxHosts {
			clear(m.well)
		}
		m.well[e.Host] = e.Seq
		if at, known := m.promoted[of]; known {
			m.took.WithLabelValues(e.Channel).Observe(max(e.Time.Sub(at).Seconds(), 0))
		}
	}
}

// keep keeps when a release was promoted.
func (m *Metrics) keep(of release, at time.Time) {
	if _, known := m.promoted[of]; known {
		return
	}
	if len(m.order) >= maxReleases {
		delete(m.promoted, m.order[0])
		m.order = m.order[1:]
	}
	m.promoted[of] = at
	m.order = append(m.order, of)
}
