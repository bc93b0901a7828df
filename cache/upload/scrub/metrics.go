package scrub

import "github.com/prometheus/client_golang/prometheus"

// Register exports the numbers.
func (s *Scrubber) Register(to prometheus.Registerer) {
	to.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "narwharf_scrub_bytes_total", Help: "Bytes of NAR files read in the background to see whether they are whole.",
		}, func() float64 { return float64(s.read.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "narwharf_scrub_damaged_total", Help: "NAR files that were found damaged or gone by that.",
		}, func() float64 { return float64(s.damaged.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "narwharf_scrub_round_timestamp_seconds", Help: "When everything had been read once, the last time; 0 if never.",
		}, func() float64 { return float64(s.rounds.Load()) }),
	)
}
