// Package meter counts what the cache answers, takes in and refuses.
package meter

import (
	"cmp"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"narwharf/cache/index"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/cache/stored"
)

// Meter has the server's own numbers. Names and labels are documented in
// docs/metrics.md.
type Meter struct {
	InFlight atomic.Int64 // uploads that are being received
	Aborted  prometheus.Counter
	Fast     prometheus.Counter // answers of the fast path; the others count them, too

	registry *prometheus.Registry
	requests *prometheus.CounterVec
	sent     *prometheus.CounterVec
	received *prometheus.CounterVec
	uploads  *prometheus.CounterVec
	refusals *prometheus.CounterVec
	verify   *prometheus.CounterVec
	broken   *prometheus.CounterVec

	// Looking a counter up by label strings costs more than answering a
	// narinfo from memory should; each combination is looked up once.
	seen sync.Map // Key -> Counters
}

// The sources of what is sent.
const (
	Uploaded = "uploaded"
	Local    = "local"
	Upstream = "upstream"
)

// What can be wrong with a local path.
const (
	Changed    = "changed"
	Missing    = "missing"
	Unreadable = "unreadable"
)

// Key says which replies are counted together.
type Key struct {
	Route, Method, Source string
	Status                int
}

// Counters are those of one Key.
type Counters struct{ Requests, Sent prometheus.Counter }

// verifyKinds are the refusals that mean "the bytes are not what they were
// said to be".
var verifyKinds = map[refusal.Kind]bool{
	refusal.Nar: true, refusal.FileHash: true, refusal.FileSize: true, refusal.NarHash: true, refusal.NarSize: true, refusal.Compression: true,
}

// New registers the numbers of a cache, and those of Go and the process.
func New(c *stored.Cache, registry *prometheus.Registry) *Meter {
	auto := promauto.With(registry)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return auto.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &Meter{
		registry: registry,
		requests: counter("narwharf_http_requests_total", "Requests answered, by route of the URL grammar, method and status.", "route", "method", "status"),
		sent:     counter("narwharf_http_sent_bytes_total", "Bytes of response bodies, by route and where they came from.", "route", "source"),
		received: counter("narwharf_http_received_bytes_total", "Bytes of request bodies read, by route.", "route"),
		uploads:  counter("narwharf_uploads_total", "Uploads by route and result (ok, refused, failed).", "route", "result"),
		refusals: counter("narwharf_upload_refusals_total", "Uploads that were refused, by route and kind.", "route", "kind"),
		verify:   counter("narwharf_verify_failures_total", "Uploads whose bytes were not what they were said to be, by kind.", "kind"),
		Aborted:  auto.NewCounter(prometheus.CounterOpts{Name: "narwharf_http_aborted_total", Help: "Replies broken off after their header had gone out."}),
		Fast:     auto.NewCounter(prometheus.CounterOpts{Name: "narwharf_http_fast_total", Help: "Requests answered on the connection, before net/http; the others count them, too."}),
		broken:   counter("narwharf_local_broken_total", "NARs and listings of local paths that could not be sent, or were broken off, since the path is not what Nix knows it as, by kind.", "kind"),
	}
	for _, kind := range []string{Changed, Missing, Unreadable} {
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
	gauge("narwharf_uploads_in_flight", "Uploads being received now.", func() float64 { return float64(m.InFlight.Load()) })
	gauge("narwharf_cache_paths", "Store paths in the cache.", total(func(t index.Totals) int64 { return t.Paths }))
	gauge("narwharf_cache_unpacked_bytes", "Sum of the NAR sizes of all store paths.", total(func(t index.Totals) int64 { return t.NarSize }))
	gauge("narwharf_cache_nar_files", "NAR files on disk.", func() float64 { return float64(c.Uploads.Counts().NarFiles) })
	gauge("narwharf_cache_bytes", "Bytes of NAR files on disk.", func() float64 { return float64(c.Uploads.Counts().NarBytes) })
	gauge("narwharf_cache_lost_nars", "NARs that a narinfo names and that are known to be gone from the disk.", func() float64 { return float64(c.Uploads.Lost()) })
	gauge("narwharf_local_unkept_paths", "Paths of the local store that uploads refer to and that are not adopted yet, or cannot be.", func() float64 { return float64(c.Pending()) })
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Answered counts a reply.
func (m *Meter) Answered(w *reply.Writer, req *http.Request) {
	method := req.Method
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPut:
	default:
		method = "other"
	}
	c := m.Of(Key{w.Route, method, cmp.Or(w.Source, Uploaded), w.Status})
	c.Requests.Inc()
	c.Sent.Add(float64(w.Bytes))
}

// Of returns the counters of one kind of reply.
func (m *Meter) Of(key Key) (rc Counters) {
	c, ok := m.seen.Load(key)
	if !ok {
		c, _ = m.seen.LoadOrStore(key, Counters{
			m.requests.WithLabelValues(key.Route, key.Method, strconv.Itoa(key.Status)),
			m.sent.WithLabelValues(key.Route, key.Source),
		})
	}
	if rc, ok = c.(Counters); !ok {
		panic("meter: counters of another type")
	}
	return rc
}

// Refused counts an upload that was.
func (m *Meter) Refused(route string, kind refusal.Kind) {
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

// Taken counts an upload that was taken in.
func (m *Meter) Taken(route string) { m.uploads.WithLabelValues(route, "ok").Inc() }

// Received counts the bytes of a body.
func (m *Meter) Received(route string, bytes int64) {
	m.received.WithLabelValues(route).Add(float64(bytes))
}

// Broken counts a local path that was found Changed, Missing or Unreadable.
func (m *Meter) Broken(kind string) { m.broken.WithLabelValues(kind).Inc() }

// ServeHTTP answers with all numbers of the registry.
func (m *Meter) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}).ServeHTTP(w, req)
}
