package cache

import (
	"cmp"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"narwharf/cache/index"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/cache/stored"
)

// metrics are the server's own numbers. Names and labels are documented in
// docs/metrics.md.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	sent     *prometheus.CounterVec
	received *prometheus.CounterVec
	uploads  *prometheus.CounterVec
	refusals *prometheus.CounterVec
	verify   *prometheus.CounterVec
	aborted  prometheus.Counter
	broken   *prometheus.CounterVec
	inFlight atomic.Int64
	fast     prometheus.Counter

	// Looking a counter up by label strings costs more than answering a
	// narinfo from memory should; each combination is looked up once.
	seen sync.Map // requestKey -> requestCounters
}

// The sources of what is sent.
const (
	sourceUploaded = "uploaded"
	sourceLocal    = "local"
	sourceUpstream = "upstream"
)

// What can be wrong with a local path.
const (
	brokenChanged    = "changed"
	brokenMissing    = "missing"
	brokenUnreadable = "unreadable"
)

type requestKey struct {
	route, method, source string
	status                int
}

type requestCounters struct{ requests, sent prometheus.Counter }

// verifyKinds are the refusals that mean "the bytes are not what they were
// said to be".
var verifyKinds = map[refusal.Kind]bool{
	refusal.Nar: true, refusal.FileHash: true, refusal.FileSize: true, refusal.NarHash: true, refusal.NarSize: true, refusal.Compression: true,
}

func newMetrics(c *stored.Cache, registry *prometheus.Registry) *metrics {
	auto := promauto.With(registry)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return auto.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		registry: registry,
		requests: counter("narwharf_http_requests_total", "Requests answered, by route of the URL grammar, method and status.", "route", "method", "status"),
		sent:     counter("narwharf_http_sent_bytes_total", "Bytes of response bodies, by route and where they came from.", "route", "source"),
		received: counter("narwharf_http_received_bytes_total", "Bytes of request bodies read, by route.", "route"),
		uploads:  counter("narwharf_uploads_total", "Uploads by route and result (ok, refused, failed).", "route", "result"),
		refusals: counter("narwharf_upload_refusals_total", "Uploads that were refused, by route and kind.", "route", "kind"),
		verify:   counter("narwharf_verify_failures_total", "Uploads whose bytes were not what they were said to be, by kind.", "kind"),
		aborted:  auto.NewCounter(prometheus.CounterOpts{Name: "narwharf_http_aborted_total", Help: "Replies broken off after their header had gone out."}),
		fast:     auto.NewCounter(prometheus.CounterOpts{Name: "narwharf_http_fast_total", Help: "Requests answered on the connection, before net/http; the others count them, too."}),
		broken:   counter("narwharf_local_broken_total", "NARs and listings of local paths that could not be sent, or were broken off, since the path is not what Nix knows it as, by kind.", "kind"),
	}
	for _, kind := range []string{brokenChanged, brokenMissing, brokenUnreadable} {
		m.broken.WithLabelValues(kind)
	}
	gauge := func(name, help string, value func() float64) {
		auto.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	total := func(of func(index.Totals) int64) func() float64 {
		return func() float64 {
			t, err := c.Uploads.Index.Totals()
			if err != nil {
				return -1
			}
			return float64(of(t))
		}
	}
	auto.NewCounterFunc(prometheus.CounterOpts{Name: "narwharf_swept_nars_total", Help: "NARs removed since no narinfo came for them."}, func() float64 { return float64(c.Uploads.Counts().Swept) })
	gauge("narwharf_uploads_in_flight", "Uploads being received now.", func() float64 { return float64(m.inFlight.Load()) })
	gauge("narwharf_cache_paths", "Store paths in the cache.", total(func(t index.Totals) int64 { return t.Paths }))
	gauge("narwharf_cache_unpacked_bytes", "Sum of the NAR sizes of all store paths.", total(func(t index.Totals) int64 { return t.NarSize }))
	gauge("narwharf_cache_nar_files", "NAR files on disk.", func() float64 { return float64(c.Uploads.Counts().NarFiles) })
	gauge("narwharf_cache_bytes", "Bytes of NAR files on disk.", func() float64 { return float64(c.Uploads.Counts().NarBytes) })
	gauge("narwharf_cache_lost_nars", "NARs that a narinfo names and that are known to be gone from the disk.", func() float64 { return float64(c.Uploads.Lost()) })
	gauge("narwharf_local_unkept_paths", "Paths of the local store that uploads refer to and that are not adopted yet, or cannot be.", func() float64 { return float64(c.Pending()) })
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// answered counts a reply.
func (m *metrics) answered(w *reply.Writer, req *http.Request) {
	method := req.Method
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPut:
	default:
		method = "other"
	}
	c := m.counters(requestKey{w.Route, method, cmp.Or(w.Source, sourceUploaded), w.Status})
	c.requests.Inc()
	c.sent.Add(float64(w.Bytes))
}

// counters are those of one kind of reply.
func (m *metrics) counters(key requestKey) (rc requestCounters) {
	c, ok := m.seen.Load(key)
	if !ok {
		c, _ = m.seen.LoadOrStore(key, requestCounters{
			m.requests.WithLabelValues(key.route, key.method, strconv.Itoa(key.status)),
			m.sent.WithLabelValues(key.route, key.source),
		})
	}
	if rc, ok = c.(requestCounters); !ok {
		panic("cache: counters of another type")
	}
	return rc
}

func (m *metrics) refused(route string, kind refusal.Kind) {
	result := "refused"
	if kind == refusal.Internal {
		result = "failed"
	}
	m.uploads.WithLabelValues(route, result).Inc()
	m.refusals.WithLabelValues(route, string(kind)).Inc()
	if verifyKinds[kind] {
		m.verify.WithLabelValues(string(kind)).Inc()
	}
}
