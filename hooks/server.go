package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"

	"narwharf/cache/state/namelock"
	"narwharf/hooks/api"
	"narwharf/hooks/longpoll"
	"narwharf/signing/access"
)

// Options configure a Server.
type Options struct {
	DB      *bbolt.DB
	Cache   Cache
	Files   Files
	Access  *access.Authenticator
	Tokens  access.Store // of Access, for joins; nil: there are none
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Clock   func() time.Time // nil: time.Now

	// Bootstrap makes a first boot's script; nil where hosts are not to trust
	// the server.
	Bootstrap func(BootstrapRequest) (string, error)
}

// Server is the API of channels and hosts, an http.Handler for /api/v1/.
type Server struct {
	cache  Cache
	files  Files
	access *access.Authenticator
	tokens access.Store

	bootstrap func(BootstrapRequest) (string, error)
	log       *slog.Logger
	clock     func() time.Time
	began     time.Time
	store     *store
	alarms    alarms
	metrics   *metrics
	handler   http.Handler

	mu       sync.RWMutex
	channels map[string]*live
	policies map[string]*policy
	seen     map[string]*presence
	slots    slots

	promoting namelock.Set // one promote of a channel at a time
	reporting namelock.Set // one change of a host's record at a time

	identities *identities

	polls *longpoll.Polls
}

// New opens the channels in db.
func New(o Options) (*Server, error) {
	st, err := newStore(o.DB)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cache: o.Cache, files: o.Files, access: o.Access, tokens: o.Tokens, bootstrap: o.Bootstrap, log: o.Log, clock: o.Clock, store: st,
		channels: make(map[string]*live), seen: make(map[string]*presence),
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	s.began, s.alarms.clock = s.clock(), s.clock
	if s.identities, err = loadIdentities(o.DB); err != nil {
		return nil, err
	}
	if s.policies, err = loadPolicies(o.DB); err != nil {
		return nil, err
	}
	if s.slots.held, err = loadSlots(o.DB, s.clock()); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	for host, sl := range s.slots.all() {
		s.watchSlot(host, sl)
	}
	s.polls = longpoll.New(longpoll.Options{Log: s.log, WriteError: s.writeError, Answered: s.count})
	s.metrics = newMetrics(s, o.Metrics)
	s.handler = s.route()
	return s, nil
}

// Stop answers all parked polls with 503, so that a graceful shutdown does
// not wait for them. When it returns, no poll is off net/http any more.
func (s *Server) Stop() {
	s.alarms.stop()
	s.polls.Stop()
}

// Returned is a listener for the http.Server that serves s, in addition to its
// others: see longpoll.Polls.Listener.
func (s *Server) Returned(idle time.Duration) net.Listener { return s.polls.Listener(idle) }

// A Route is a row of the API's grammar.
type Route struct {
	Method  string
	Pattern string
	Name    string
}

// endpoint answers one route; what it returns as an error becomes the answer.
type endpoint func(c *call) error

// call is a request on its way through an endpoint.
type call struct {
	w     http.ResponseWriter
	req   *http.Request
	who   access.Principal
	param func(name string) string
	route string
	// parked is set when the request was taken off net/http: whoever parked
	// it answers and counts it.
	parked bool
}

type row struct {
	Route
	serve endpoint
}

func (s *Server) rows() []row {
	return []row{
		{Route{"GET", "/api/v1/channels", "channel-list"}, s.listChannels},
		{Route{"GET", "/api/v1/channels/:channel", "channel"}, s.getChannel},
		{Route{"PUT", "/api/v1/channels/:channel", "promote"}, s.promote},
		{Route{"DELETE", "/api/v1/channels/:channel", "channel-delete"}, s.deleteChannel},
		{Route{"GET", "/api/v1/channels/:channel/history", "history"}, s.getHistory},
		{Route{"GET", "/api/v1/channels/:channel/releases/:seq", "release"}, s.getRelease},
		{Route{"GET", "/api/v1/channels/:channel/store-path", "store-path"}, s.getStorePath},
		{Route{"GET", "/api/v1/channels/:channel/policy", "policy"}, s.getPolicy},
		{Route{"PUT", "/api/v1/channels/:channel/policy", "policy-put"}, s.putPolicy},
		{Route{"GET", "/api/v1/channels/:channel/bootstrap", "bootstrap"}, s.getBootstrap},
		{Route{"GET", "/api/v1/closures/:digest", "closure"}, s.getClosure},
		{Route{"PUT", "/api/v1/closures/:digest", "closure-put"}, s.putClosure},
		{Route{"GET", "/api/v1/hosts", "host-list"}, s.listHosts},
		{Route{"GET", "/api/v1/hosts/:host", "host"}, s.getHost},
		{Route{"PATCH", "/api/v1/hosts/:host", "host-patch"}, s.patchHost},
		{Route{"DELETE", "/api/v1/hosts/:host", "host-delete"}, s.deleteHost},
		{Route{"POST", "/api/v1/hosts/:host/approve", "host-approve"}, s.approveHost},
		{Route{"POST", "/api/v1/hosts/:host/retry", "host-retry"}, s.retryHost},
		{Route{"POST", "/api/v1/hosts/:host/revert", "host-revert"}, s.revertHost},
		{Route{"POST", "/api/v1/hosts/:host/release", "host-release"}, s.releaseHost},
		{Route{"POST", "/api/v1/join", "join"}, s.join},
		{Route{"GET", "/api/v1/hosts/:host/desired", "desired"}, s.getDesired},
		{Route{"PUT", "/api/v1/hosts/:host/status", "status"}, s.putStatus},
		{Route{"POST", "/api/v1/hosts/:host/log", "host-log-post"}, s.postLog},
		{Route{"GET", "/api/v1/hosts/:host/log", "host-log"}, s.getLog},
		{Route{"GET", "/api/v1/events", "events"}, s.getEvents},
	}
}

// Routes lists the API, for documents and tests.
func Routes() []Route {
	var list []Route
	for _, r := range new(Server).rows() {
		list = append(list, r.Route)
	}
	return list
}

// route builds the router. It is the only place here that knows echo.
func (s *Server) route() http.Handler {
	e := echo.New()
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		if he := new(echo.HTTPError); errors.As(err, &he) {
			kind := api.NotFound
			text := "there is nothing at " + c.Request().URL.Path
			if he.Code == http.StatusMethodNotAllowed {
				kind, text = api.MethodNotAllowed, c.Request().Method+" does nothing here"
			}
			err = api.Errorf(kind, "%s", text)
		}
		s.writeError(c.Response().Writer, c.Request(), err)
	}
	for _, r := range s.rows() {
		serve := func(c echo.Context) error {
			call := &call{w: c.Response().Writer, req: c.Request(), param: c.Param, who: s.access.Identify(c.Request())}
			return s.answer(r, call)
		}
		e.Add(r.Method, r.Pattern, serve)
		if r.Method == http.MethodGet {
			e.Add(http.MethodHead, r.Pattern, serve)
		}
	}
	return e
}

// answer calls an endpoint and counts the reply.
func (s *Server) answer(r row, c *call) error {
	c.w.Header()["Cache-Control"] = []string{"no-store"}
	counted := &statusWriter{ResponseWriter: c.w}
	c.w, c.route = counted, r.Name
	if err := r.serve(c); err != nil {
		if d := (*access.Denied)(nil); errors.As(err, &d) && c.who.Err != nil {
			s.log.Error("a token could not be checked", "path", c.req.URL.Path, "error", c.who.Err)
		}
		s.writeError(counted, c.req, err)
	}
	if !c.parked {
		s.count(r.Name, counted.status())
	}
	return nil
}

func (s *Server) count(route string, status int) {
	s.metrics.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	req.URL.RawPath = ""
	s.handler.ServeHTTP(w, req)
}

type statusWriter struct {
	http.ResponseWriter
	code int
}

func (w *statusWriter) status() int {
	if w.code == 0 {
		return http.StatusOK
	}
	return w.code
}

func (w *statusWriter) WriteHeader(code int) {
	if w.code == 0 && code >= 200 {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// need checks that the caller has one of the scopes.
func (c *call) need(scopes ...access.Scope) error {
	var first *access.Denied
	for _, sc := range scopes {
		d := c.who.Deny(sc)
		if d == nil {
			return nil
		}
		if first == nil {
			first = d
		}
	}
	return first
}

// needAs is need of a host, as itself.
func (c *call) needAs(host string, scope access.Scope) error {
	if d := c.who.DenyAs(scope, host); d != nil {
		return d
	}
	return nil
}

// writeError is the one place where errors become answers.
func (s *Server) writeError(w http.ResponseWriter, req *http.Request, err error) {
	var e *api.Error
	var d *access.Denied
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &e):
	case errors.Is(err, longpoll.ErrStopping):
		e = api.Errorf(api.Unavailable, "%v", err)
		e.RetryAfter = time.Duration(1+rand.IntN(5)) * time.Second
	case errors.As(err, &d):
		kind, after := api.Forbidden, time.Duration(0)
		switch d.Status {
		case http.StatusUnauthorized:
			kind = api.Unauthorized
			w.Header().Set("WWW-Authenticate", access.Challenge)
		case http.StatusServiceUnavailable: // the token could not be checked
			kind, after = api.Unavailable, time.Duration(1+rand.IntN(5))*time.Second
		}
		e = api.Errorf(kind, "%s", err.Error())
		e.RetryAfter = after
	case errors.As(err, &tooBig):
		e = api.Errorf(api.TooLarge, "the body is larger than %d bytes", tooBig.Limit)
	case req.Context().Err() != nil:
		return // the client left; nobody reads this
	default:
		s.log.Error("request failed", "method", req.Method, "path", req.URL.Path, "error", err)
		e = api.Errorf(api.Internal, "internal error; the server's log says more")
	}
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(int(e.RetryAfter.Seconds())))
	}
	writeJSON(w, e.Status, e)
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // types of package api always encode
	}
	longpoll.WriteJSON(w, status, append(text, '\n'))
}

// readJSON reads a body of at most limit bytes. An empty object is for the
// endpoint to refuse: what is missing from it differs.
func readJSON(c *call, limit int64, value any) error {
	err := json.NewDecoder(http.MaxBytesReader(c.w, c.req.Body, limit)).Decode(value)
	var tooBig *http.MaxBytesError
	if errors.As(err, &tooBig) {
		return err
	}
	if err != nil {
		return api.Errorf(api.BadRequest, "the body is not the JSON that belongs here: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}
