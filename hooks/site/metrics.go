package site

import "github.com/prometheus/client_golang/prometheus"

var (
	seqDesc     = prometheus.NewDesc("narwharf_mirror_release", "The current release of a channel of mirror.channels, as the centre said last; 0: none.", []string{"channel"}, nil)
	missingDesc = prometheus.NewDesc("narwharf_mirror_missing_paths", "Paths that the current release and the one before need and that are not here yet.", []string{"channel"}, nil)
	heardDesc   = prometheus.NewDesc("narwharf_mirror_heard_timestamp_seconds", "When the centre last answered about a channel; at first the start.", []string{"channel"}, nil)
)

// Register adds the numbers of each channel.
func (f *Follower) Register(registry prometheus.Registerer) {
	if f != nil {
		registry.MustRegister(f)
	}
}

// Describe is for Prometheus.
func (f *Follower) Describe(to chan<- *prometheus.Desc) {
	to <- seqDesc
	to <- missingDesc
	to <- heardDesc
}

// Collect is for Prometheus.
func (f *Follower) Collect(to chan<- prometheus.Metric) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range f.Channels {
		s := f.seen[name]
		to <- prometheus.MustNewConstMetric(seqDesc, prometheus.GaugeValue, float64(s.seq), name)
		to <- prometheus.MustNewConstMetric(missingDesc, prometheus.GaugeValue, float64(s.missing), name)
		to <- prometheus.MustNewConstMetric(heardDesc, prometheus.GaugeValue, float64(s.heard.UnixMilli())/1000, name)
	}
}
