package hooks

import (
	"github.com/prometheus/client_golang/prometheus"

	"narwharf/hooks/api"
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
	reg.MustRegister(m.requests, m.promoted, &fleetCollector{s, ofHosts},
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "narwharf_polls_parked", Help: "Polls that wait for a change."},
			func() float64 { return float64(s.polls.Count().Waiting) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "narwharf_polls_detached", Help: "Those of them that wait outside of net/http."},
			func() float64 { return float64(s.polls.Count().Detached) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "narwharf_poll_wakeups_total", Help: "Times a parked poll was woken to look."},
			func() float64 { return float64(s.polls.Count().Woken) }))
	return m
}

// fleetCollector tells about channels and hosts when it is asked.
type fleetCollector struct {
	s     *Server
	hosts bool // each by its name
}

var (
	seqDesc     = prometheus.NewDesc("narwharf_channel_seq", "Seq of the channel's last release.", []string{"channel"}, nil)
	hostsDesc   = prometheus.NewDesc("narwharf_hosts", "Hosts by channel and the state that they declared.", []string{"channel", "state"}, nil)
	convDesc    = prometheus.NewDesc("narwharf_hosts_converged", "Hosts that run what their channel's last release has for them.", []string{"channel"}, nil)
	heldDesc    = prometheus.NewDesc("narwharf_hosts_held", "Hosts that are held.", []string{"channel"}, nil)
	openDesc    = prometheus.NewDesc("narwharf_channel_window_open", "1 if a window of the channel is open now, else 0; of channels with windows.", []string{"channel"}, nil)
	slotDesc    = prometheus.NewDesc("narwharf_reboot_slots_in_use", "Hosts that may reboot, or do, or have not reported the end.", []string{"group"}, nil)
	overdueDesc = prometheus.NewDesc("narwharf_reboot_slots_late", "Those of them that have not come to an end in time.", []string{"group"}, nil)
	seenDesc    = prometheus.NewDesc("narwharf_host_last_seen_seconds", "Unix time of the last poll or report.", []string{"host"}, nil)
)

// Describe implements prometheus.Collector. What there is to tell is not known before.
func (f *fleetCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (f *fleetCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(of *prometheus.Desc, value int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(of, prometheus.GaugeValue, float64(value), labels...)
	}
	for _, l := range f.s.channels.List() {
		gauge(seqDesc, int(l.Seq), l.Channel)
	}
	f.collectPolicies(gauge)
	hosts, _, err := f.s.Fleet.List("")
	if err != nil {
		f.s.log.Error("metrics of hosts are not complete", "error", err)
	}
	type key struct {
		channel string
		state   api.State
	}
	states := make(map[key]int)
	converged, held := make(map[string]int), make(map[string]int)
	for _, h := range hosts {
		if f.hosts {
			gauge(seenDesc, int(h.LastSeen.Unix()), h.Host)
		}
		if h.Status == nil {
			continue
		}
		states[key{h.Status.Channel, h.Status.State}]++
		if h.Hold != nil {
			held[h.Status.Channel]++
		}
		if h.Converged {
			converged[h.Status.Channel]++
		}
	}
	for k, n := range states {
		gauge(hostsDesc, n, k.channel, string(k.state))
	}
	for c, n := range held {
		gauge(heldDesc, n, c)
	}
	for c, n := range converged {
		gauge(convDesc, n, c)
	}
}

// collectPolicies tells about windows and reboot slots.
func (f *fleetCollector) collectPolicies(gauge func(of *prometheus.Desc, value int, labels ...string)) {
	for name, p := range f.s.policies.All() {
		if len(p.Windows) > 0 {
			v := 0
			if open, _ := p.Open(f.s.clock()); open {
				v = 1
			}
			gauge(openDesc, v, name)
		}
	}
	used, overdue := make(map[string]int), make(map[string]int)
	for _, sl := range f.s.slots.All() {
		used[sl.Group]++
		if sl.Alarmed {
			overdue[sl.Group]++
		}
	}
	for g, n := range used {
		gauge(slotDesc, n, g)
		gauge(overdueDesc, overdue[g], g)
	}
}
