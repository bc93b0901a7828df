package cache

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/fastpath"
	"narwharf/cache/listing"
	"narwharf/cache/local"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/cache/sidecar"
	"narwharf/cache/signed"
	"narwharf/cache/upload"
	"narwharf/cache/upload/adopt"
	"narwharf/signing"
	"narwharf/signing/access"
)

// Options configure a Server.
type Options struct {
	Priority int // of nix-cache-info; lower is asked first, cache.nixos.org has 40
	// PublicURL is where clients reach the cache, nil if unknown. If it has a
	// path, without a slash at its end, URLs with that prefix are understood too, so a proxy may pass
	// the path on or take it off.
	PublicURL *url.URL
	Uploads   *upload.Store
	// Signer is told of the changes of Uploads.
	Signer *signed.Signer
	// Adopter adopts what uploads refer to.
	Adopter *adopt.Adopter
	// RequireUploadSig, if not empty, are the keys of which one must have
	// signed what is uploaded.
	RequireUploadSig []signing.PublicKey
	Access           *access.Authenticator
	// Local is the store of this machine; nil serves uploads alone.
	Local *local.Store
	// BodyIdle is how long an upload may be silent, in any phase.
	BodyIdle time.Duration
	// Metrics is what /metrics shows; the server adds its own. nil makes one.
	Metrics *prometheus.Registry
	Version string
	Log     *slog.Logger
}

// parts is what all handlers work with.
type parts struct {
	Options
	metrics   *metrics
	immutable string // Cache-Control of what never changes
}

// Server is the cache over HTTP, an http.Handler.
type Server struct {
	*parts
	handler http.Handler
	prefix  string // path of PublicURL without the final slash
	puts    atomic.Int64

	fastListeners []*fastpath.Listener
	fastCounts    [len(fastKinds)]requestCounters // of what they answer

	idle, drainTime time.Duration // as the constants, but for tests
}

// NewServer wires the endpoints.
func NewServer(opts Options) *Server {
	if opts.Metrics == nil {
		opts.Metrics = prometheus.NewRegistry()
	}
	s := &Server{parts: &parts{Options: opts, metrics: newMetrics(opts.Uploads, opts.Adopter, opts.Metrics)}, idle: reply.WriteIdle, drainTime: drainTime}
	// Shared caches may keep an answer to a request with credentials if it is
	// "public" (RFC 9111, 3.5), and would hand it to whom has none.
	s.immutable = "private, max-age=31536000, immutable"
	if opts.Access.Identify(new(http.Request)).Deny(access.Scope{Kind: access.Pull}) == nil {
		s.immutable = "public, max-age=31536000, immutable"
	}
	if opts.PublicURL != nil {
		s.prefix = opts.PublicURL.Path
	}
	s.handler = s.route()
	return s
}

// UploadsInFlight is the number of PUTs being received.
func (s *Server) UploadsInFlight() int64 { return s.puts.Load() }

// endpoint answers one route. name is the parameter of the grammar, decoded.
// What it returns as an error becomes the answer, if nothing was written yet.
type endpoint func(w *reply.Writer, req *http.Request, name string) error

// endpoints says what reads and writes each row of Routes.
func (s *Server) endpoints() map[string]struct{ read, write endpoint } {
	type rw = struct{ read, write endpoint }
	about, infos, nars, locals := &pages{s.parts}, &narinfos{s.parts}, &nars{s.parts}, &localNars{s.parts}
	maker, small := listing.New(s.Uploads, s.Log), sidecar.New(s.Uploads.Files)
	lists, files, sides := &listings{s.parts, maker}, &browser{s.parts, maker}, &sidecars{s.parts, small}
	return map[string]rw{
		"landing":        {read: about.getLanding},
		"nix-cache-info": {read: about.getCacheInfo, write: about.putCacheInfo},
		"narinfo":        {read: infos.getNarinfo, write: infos.putNarinfo},
		"ls":             {read: lists.getListing, write: lists.putListing},
		"nar":            {read: nars.getNar, write: nars.putNar},
		"packed-nar":     {read: locals.getCompressedNar},
		"plain-nar":      {read: locals.getPlainNar},
		"log":            {read: sides.getLog, write: sides.putLog},
		"debuginfo":      {read: sides.reads(sidecar.DebuginfoName), write: sides.writes("debuginfo", small.PutDebuginfo)},
		"realisation":    {read: sides.reads(sidecar.RealisationName), write: sides.writes("realisations", small.PutRealisation)},
		"build-trace":    {read: sides.reads(sidecar.BuildTraceName), write: sides.writes("build-trace-v2", small.PutBuildTrace)},
		"serve":          {read: files.getServe},
		"pubkey":         {read: about.getPubkey},
		"version":        {read: about.getVersion},
		"healthz":        {read: about.getHealthz},
		"readyz":         {read: about.getReadyz},
		"metrics":        {read: about.getMetrics},
	}
}

// route builds the router from the table. It is the only place that knows echo,
// which finds the row and nothing else: methods are for serve to judge.
func (s *Server) route() http.Handler {
	e := echo.New()
	endpoints := s.endpoints()
	patterns := make(map[string][]*Route)
	for i := range Routes {
		r := &Routes[i]
		patterns[r.Pattern] = append(patterns[r.Pattern], r)
	}
	for pattern, rows := range patterns {
		e.GET(pattern, func(c echo.Context) error {
			w, ok := c.Response().Writer.(*reply.Writer)
			if !ok {
				panic("cache: echo hides the response")
			}
			row, name, hint := match(rows, c.ParamValues())
			if row == nil {
				if hint == "" {
					hint = "there is nothing at this URL"
				}
				return refusal.New(refusal.Name, "%s", hint)
			}
			w.Route = row.Name
			ep := endpoints[row.Name]
			return s.serve(row, w, c.Request(), name, ep.read, ep.write)
		})
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		w, ok := rw.(*reply.Writer)
		if !ok {
			panic("cache: something hides the response")
		}
		c := e.AcquireContext()
		defer e.ReleaseContext(c)
		c.Reset(req, w)
		e.Router().Find(http.MethodGet, req.URL.Path, c)
		err := c.Handler()(c)
		if he := new(echo.HTTPError); errors.As(err, &he) { // no pattern fits
			err = refusal.New(refusal.Name, "there is nothing at this URL; a Nix cache has /nix-cache-info, /<hash>.narinfo and /nar/…")
		}
		if err != nil {
			s.writeError(w, req, err)
		}
	})
}

// serve checks method and rights by the table's row and calls the endpoint.
func (s *Server) serve(row *Route, w *reply.Writer, req *http.Request, name string, read, write endpoint) error {
	switch req.Method {
	case http.MethodGet, http.MethodHead:
		if !row.Public {
			if d := s.Access.Identify(req).Deny(access.Scope{Kind: row.Read}); d != nil {
				return d
			}
		}
		return read(w, req, name)
	case http.MethodPut:
		if row.Write {
			return s.put(w, req, name, write)
		}
	}
	allow := "GET, HEAD"
	if row.Write {
		allow += ", PUT"
	}
	w.Header().Set("Allow", allow)
	return refusal.New(refusal.Method, "%s takes %s", row.Name, allow)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	w := reply.NewWriter(rw, req, s.idle)
	// Routes match the decoded path; a proxy may have left our prefix on it.
	req.URL.RawPath = ""
	if s.prefix != "" {
		if rest, ok := strings.CutPrefix(req.URL.Path, s.prefix); ok && (rest == "" || rest[0] == '/') {
			req.URL.Path = rest
		}
	}
	if req.URL.Path == "" {
		req.URL.Path = "/"
	}
	defer func() {
		w.Disarm()
		if v := recover(); v != nil {
			s.metrics.aborted.Inc()
			s.metrics.answered(w, req)
			panic(v)
		}
		if w.Status == 0 {
			w.Status = http.StatusOK
		}
		s.metrics.answered(w, req)
	}()
	s.handler.ServeHTTP(w, req)
}
