package cache

import (
	"cmp"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/fastpath"
	"narwharf/cache/limits"
	"narwharf/cache/local"
	"narwharf/cache/meter"
	"narwharf/cache/probe"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/cache/sidecar"
	"narwharf/cache/stored"
	"narwharf/signing"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

// Options configure a Server.
type Options struct {
	Priority int // of nix-cache-info; lower is asked first, cache.nixos.org has 40
	// PublicURL is where clients reach the cache, nil if unknown. If it has a
	// path, without a slash at its end, URLs with that prefix are understood too, so a proxy may pass
	// the path on or take it off.
	PublicURL *url.URL
	// Cache is what is served. Its signer is told of the changes of its uploads.
	Cache *stored.Cache
	// RequireUploadSig, if not empty, are the keys of which one must have
	// signed what is uploaded.
	RequireUploadSig []signing.PublicKey
	Access           *access.Authenticator
	// Refused, if it is not nil, is told of what somebody may not do.
	Refused func(who *access.Principal, route string, d *access.Denied)
	// BodyIdle is how long an upload may be silent, in any phase; Uploads is how many there
	// may be at once, 0: 64.
	BodyIdle time.Duration
	Uploads  int
	// Metrics is what /metrics shows; the server adds its own. nil makes one.
	Metrics *prometheus.Registry
	Version string
	Log     *slog.Logger
}

// parts is what all handlers work with.
type parts struct {
	Options
	metrics    *meter.Meter
	prefix     string // path of PublicURL without the final slash
	public     bool   // anonymous may pull
	immutable  string // Cache-Control of what never changes
	publicPush bool   // anonymous may push
}

// Server is the cache over HTTP, an http.Handler.
type Server struct {
	*parts
	endpoints map[string]endpoints
	slots     *limits.Slots // for uploads

	fastListeners []*fastpath.Listener
	fastCounts    [len(fastKinds)]meter.Counters // of what they answer

	idle, unread time.Duration // as the constants, but for tests
}

// NewServer wires the endpoints.
func NewServer(opts Options) *Server {
	if opts.Metrics == nil {
		opts.Metrics = prometheus.NewRegistry()
	}
	s := &Server{parts: &parts{Options: opts, metrics: meter.New(opts.Cache, opts.Metrics)}, idle: reply.WriteIdle, unread: limits.Unread, slots: limits.NewSlots(cmp.Or(opts.Uploads, 64))}
	s.publicPush = opts.Access.Anybody(scope.Scope{Kind: scope.Push})
	s.public = opts.Access.Anybody(scope.Scope{Kind: scope.Pull})
	// Shared caches may keep an answer to a request with credentials if it is
	// "public" (RFC 9111, 3.5), and would hand it to whom has none.
	s.immutable = "private, max-age=31536000, immutable"
	if s.public {
		s.immutable = "public, max-age=31536000, immutable"
	}
	if opts.PublicURL != nil {
		s.prefix = opts.PublicURL.Path
	}
	s.endpoints = s.table()
	return s
}

// UploadsInFlight is the number of PUTs being received.
func (s *Server) UploadsInFlight() int64 { return s.metrics.InFlight.Load() }

// endpoint answers one route. name is the parameter of the grammar, decoded.
// What it returns as an error becomes the answer, if nothing was written yet.
type endpoint func(w *reply.Writer, req *http.Request, name string) error

// endpoints is what reads and writes a row of Routes.
type endpoints struct{ read, write endpoint }

func (s *Server) table() map[string]endpoints {
	small := s.Cache.Sidecars
	about, infos, locals := &pages{s.parts}, &narinfos{s.parts}, &localNars{s.parts}
	plain := locals.sends("", locals.sendPlain)
	nars := &nars{s.parts, plain}
	lists, files, sides := &listings{s.parts}, &browser{s.parts}, &sidecars{s.parts, small}
	return map[string]endpoints{
		"landing":        {read: about.getLanding},
		"nix-cache-info": {read: about.getCacheInfo, write: about.putCacheInfo},
		"narinfo":        {read: infos.getNarinfo, write: infos.putNarinfo},
		"ls":             {read: lists.getListing, write: lists.putListing},
		"nar":            {read: nars.getNar, write: nars.putNar},
		"packed-nar":     {read: locals.sends(".zst", locals.sendCompressed)},
		"plain-nar":      {read: plain},
		"log":            {read: sides.getLog, write: sides.putLog},
		"debuginfo":      {read: sides.reads(sidecar.DebuginfoName, (*local.Store).Debuginfo), write: sides.writes("debuginfo", small.PutDebuginfo)},
		"realisation":    {read: sides.reads(sidecar.RealisationName, (*local.Store).Realisation), write: sides.writes("realisations", small.PutRealisation)},
		"build-trace":    {read: sides.reads(sidecar.BuildTraceName, (*local.Store).BuildTrace), write: sides.writes("build-trace-v2", small.PutBuildTrace)},
		"serve":          {read: files.getServe},
		"pubkey":         {read: about.getPubkey},
		"version":        {read: about.getVersion},
		"healthz":        {read: about.getHealthz},
		"readyz":         {read: about.getReadyz},
		"metrics":        {read: about.getMetrics},
	}
}

// route finds the row of Routes and serves it; methods are for serve to judge.
func (s *Server) route(w *reply.Writer, req *http.Request) error {
	row, name, hint := match(req.URL.Path)
	if row == nil {
		return refusal.New(refusal.Name, "%s", cmp.Or(hint, "there is nothing at this URL; a Nix cache has /nix-cache-info, /<hash>.narinfo and /nar/…"))
	}
	w.Route = row.Name
	ep := s.endpoints[row.Name]
	return s.serve(row, w, req, name, ep.read, ep.write)
}

// serve checks method and rights by the table's row and calls the endpoint.
func (s *Server) serve(row *Route, w *reply.Writer, req *http.Request, name string, read, write endpoint) error {
	switch req.Method {
	case http.MethodGet, http.MethodHead:
		if !row.Read[0].Public {
			p := s.Access.Identify(req)
			if d := s.denied(&p, row.Read, row.Name); d != nil {
				return d
			}
			if row.Costly {
				req = s.counts(w, req, p)
			}
		}
		if ctx, via := s.Cache.Upstreams.Came(req.Context(), req.Header["Via"]); via != "" {
			req = req.WithContext(ctx)
			w.Header()["Via"] = []string{via}
		}
		if row.Immutable {
			w.Header()["Cache-Control"] = []string{s.immutable}
		}
		return read(w, req, name)
	case http.MethodPut:
		if row.Write != nil {
			return s.put(w, req, row, name, write)
		}
	}
	allow := "GET, HEAD"
	if row.Write != nil {
		allow += ", PUT"
	}
	w.Header().Set("Allow", allow)
	return refusal.New(refusal.Method, "%s takes %s", row.Name, allow)
}

// denied is why a request may not be answered. Needs of the cache are about no channel.
func (s *parts) denied(p *access.Principal, needs scope.Needs, route string) (d *access.Denied) {
	for i := range needs {
		if d = p.Deny(scope.Scope{Kind: needs[i].Kind}); d == nil {
			return nil
		}
	}
	if s.Refused != nil {
		s.Refused(p, route, d)
	}
	return d
}

// counts has the processor time of a request counted to its client.
func (s *parts) counts(w *reply.Writer, req *http.Request, p access.Principal) *http.Request {
	who := limits.Who(p.TokenID, req)
	w.Work = func(took time.Duration) bool { return s.Cache.Spend(who, took) }
	return req.WithContext(limits.WithClient(req.Context(), who))
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	limits.Early(rw, req, s.unread, s.answer)
}

func (s *Server) answer(rw http.ResponseWriter, req *http.Request) {
	w := reply.NewWriter(rw, req, s.idle)
	probe.Answer(w.Header(), req)
	reply.Place(w, req, s.prefix)
	defer func() {
		w.End()
		if v := recover(); v != nil {
			s.metrics.Aborted.Inc()
			s.metrics.Answered(w, req)
			panic(v)
		}
		if w.Status == 0 {
			w.Status = http.StatusOK
		}
		s.metrics.Answered(w, req)
	}()
	if err := s.route(w, req); err != nil {
		s.writeError(w, req, err)
	}
}
