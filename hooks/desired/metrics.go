package desired

import (
	"github.com/prometheus/client_golang/prometheus"

	"narwharf/hooks/api"
)

// metrics tells about channels and hosts when it is asked.
type metrics struct {
	*Fleet
	hosts bool // each by its name
}

// Metrics are the numbers of channels and hosts; each host has some of its own, if ofHosts
// is true.
func (f *Fleet) Metrics(ofHosts bool) prometheus.Collector { return &metrics{f, ofHosts} }

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
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(of *prometheus.Desc, value int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(of, prometheus.GaugeValue, float64(value), labels...)
	}
	for _, l := range m.o.Channels.List() {
		gauge(seqDesc, int(l.Seq), l.Channel)
	}
	m.collectPolicies(gauge)
	hosts, _, err := m.List(func(string) bool { return true })
	if err != nil {
		m.o.Log.Error("metrics of hosts are not complete", "error", err)
	}
	type key struct {
		channel string
		state   api.State
	}
	states := make(map[key]int)
	converged, held := make(map[string]int), make(map[string]int)
	for _, h := range hosts {
		if m.hosts {
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
func (m *metrics) collectPolicies(gauge func(of *prometheus.Desc, value int, labels ...string)) {
	for name, p := range m.o.Policies.All() {
		if len(p.Windows) > 0 {
			v := 0
			if open, _ := p.Open(m.o.Clock()); open {
				v = 1
			}
			gauge(openDesc, v, name)
		}
	}
	used, overdue := make(map[string]int), make(map[string]int)
	for _, sl := range m.o.Slots.All() {
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
