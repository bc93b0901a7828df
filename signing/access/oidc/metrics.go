package oidc

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics is what an operator watches of issuers.
type metrics struct {
	of       *Issuers
	failures *prometheus.CounterVec
	refusals *prometheus.CounterVec
	age      *prometheus.Desc
}

func newMetrics(of *Issuers) *metrics {
	return &metrics{
		of: of,
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "narwharf_oidc_fetch_failures_total", Help: "Failed requests for the keys of an issuer.",
		}, []string{"issuer"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "narwharf_oidc_refused_total", Help: "JWTs that were not taken, by issuer (empty: none of ours) and reason.",
		}, []string{"issuer", "reason"}),
		age: prometheus.NewDesc("narwharf_oidc_keys_age_seconds", "Age of the keys of an issuer in memory. They count for a day.", []string{"issuer"}, nil),
	}
}

func (m *metrics) fetched(is *Issuer, err error) {
	failures := m.failures.WithLabelValues(is.Name)
	if err != nil {
		failures.Inc()
	}
}

func (m *metrics) refused(is *Issuer, err error) {
	name := ""
	if is != nil {
		name = is.Name
	}
	m.refusals.WithLabelValues(name, reason(err)).Inc()
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	m.failures.Describe(ch)
	m.refusals.Describe(ch)
	ch <- m.age
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.failures.Collect(ch)
	m.refusals.Collect(ch)
	for _, is := range m.of.All() {
		if age, ok := is.keys.age(); ok {
			ch <- prometheus.MustNewConstMetric(m.age, prometheus.GaugeValue, age.Seconds(), is.Name)
		}
	}
}
