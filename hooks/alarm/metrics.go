package alarm

import "github.com/prometheus/client_golang/prometheus"

var openDesc = prometheus.NewDesc("narwharf_alarms_open", "Alarms that are open, by kind, and whether somebody has taken them.", []string{"kind", "taken"}, nil)

// Describe implements prometheus.Collector.
func (b *Book) Describe(to chan<- *prometheus.Desc) { to <- openDesc }

// Collect implements prometheus.Collector. A kind of which none is open is not there.
func (b *Book) Collect(to chan<- prometheus.Metric) {
	type series struct{ kind, taken string }
	count := make(map[series]float64)
	for _, a := range b.open.All() {
		s := series{a.Kind, "no"}
		if a.Taken != nil {
			s.taken = "yes"
		}
		count[s]++
	}
	for s, n := range count {
		to <- prometheus.MustNewConstMetric(openDesc, prometheus.GaugeValue, n, s.kind, s.taken)
	}
}
