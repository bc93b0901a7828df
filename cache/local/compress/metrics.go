package compress

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are documented in docs/metrics.md.
type metrics struct {
	encodes                             *prometheus.CounterVec
	evicted, dropped, joined, fallbacks prometheus.Counter
}

// The results of an encode in narwharf_pack_encodes_total.
const (
	resultOK        = "ok"
	resultCancelled = "cancelled" // nobody waited for it any more, or the server stopped
	resultYielded   = "yielded"   // nobody waited for it any more, and others waited for its encoder
	resultSource    = "source"    // the store path could not be read
	resultHash      = "hash"      // the store path has another NAR than it should
	resultStore     = "store"     // the packed file could not be written
	resultFailed    = "failed"    // anything else
)

// newMetrics registers what is counted, and what can be seen of the store.
func newMetrics(s *Store, registry prometheus.Registerer) *metrics {
	auto := promauto.With(registry)
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string, value func() int64) {
		auto.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return float64(value())
		})
	}
	m := &metrics{
		encodes:   auto.NewCounterVec(prometheus.CounterOpts{Name: "narwharf_pack_encodes_total", Help: "Encodes of local store paths that ended, by result."}, []string{"result"}),
		joined:    counter("narwharf_pack_joined_total", "Readers that joined an encode which another one had asked for."),
		fallbacks: counter("narwharf_pack_alone_total", "Readers that went on with an encode of their own, since the packed file could not be written or read."),
		evicted:   counter("narwharf_pack_evicted_total", "Packed NARs removed to make room."),
		dropped:   counter("narwharf_pack_dropped_total", "Packed NARs removed since they were damaged."),
	}
	gauge("narwharf_pack_bytes", "Bytes of packed NARs on disk, those under way included.", func() int64 { return s.bytes })
	gauge("narwharf_pack_files", "Packed NARs on disk.", func() int64 { return int64(len(s.stored)) })
	gauge("narwharf_pack_live", "Encodes at work.", func() int64 { return int64(s.working) })
	gauge("narwharf_pack_queued", "Encodes that wait for an encoder.", func() int64 { return int64(s.queue.Len()) })
	for _, result := range []string{resultOK, resultCancelled, resultYielded, resultSource, resultHash, resultStore, resultFailed} {
		m.encodes.WithLabelValues(result)
	}
	return m
}

// Kept is how many packed NARs are on the disk, and how many bytes, those of encodes at work among them.
func (s *Store) Kept() (files, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(len(s.stored)), s.bytes
}
