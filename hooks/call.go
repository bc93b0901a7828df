package hooks

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"narwharf/cache/limits"
	"narwharf/hooks/api"
	"narwharf/hooks/host"
	"narwharf/hooks/longpoll"
	"narwharf/signing"
	"narwharf/signing/access"
)

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

// answer calls an endpoint and counts the reply.
func (s *Server) answer(r row, c *call) error {
	c.w.Header()["Cache-Control"] = []string{"no-store"}
	limits.Begin(c.w, c.req)
	counted := limits.NewAnswer(c.w)
	c.w, c.route = counted, r.Name
	if err := r.serve(c); err != nil {
		if d := (*access.Denied)(nil); errors.As(err, &d) && c.who.Err != nil {
			s.log.Error("a token could not be checked", "path", c.req.URL.Path, "error", c.who.Err)
		}
		s.writeError(counted, c.req, err)
	}
	if !c.parked {
		s.count(r.Name, cmp.Or(counted.Status, http.StatusOK))
	}
	return nil
}

func (s *Server) count(route string, status int) {
	s.metrics.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
}

// body is that of a call, of at most limit bytes, of which held are in memory at once.
func (s *Server) body(c *call, room *limits.Room, limit, held int64) (body io.Reader, done func(), err error) {
	done, err = room.Take(c.req, held)
	return limits.Body(c.w, c.req, limit, s.bodyIdle), done, err
}

// need checks that the caller has a scope.
func (c *call) need(scope access.Scope) error { return c.needAs(c.who.Host, scope) }

// needAs is need of a host, as itself.
func (c *call) needAs(host string, scope access.Scope) error {
	if d := c.who.DenyAs(scope, host); d != nil {
		return d
	}
	return nil
}

// needSome checks that the caller has a scope of a kind for some channel, as host if
// that is not "". It is for what names its channel in the body, of which nothing is read
// before.
func (c *call) needSome(kind access.Kind, host string) error {
	need := access.Scope{Kind: kind, Glob: "*"}
	if name := c.req.URL.Query().Get("channel"); signing.CheckChannel(name) == nil { // for the words; older clients do not say it
		need.Glob = name
	}
	for _, sc := range c.who.Scopes {
		if sc.Kind == kind {
			need = sc
		}
	}
	return c.needAs(cmp.Or(host, c.who.Host), need)
}

// writeError is the one place where errors become answers.
func (s *Server) writeError(w http.ResponseWriter, req *http.Request, err error) {
	var e *api.Error
	var d *access.Denied
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &e):
	case errors.Is(err, longpoll.ErrStopping), errors.Is(err, limits.ErrFull), errors.Is(err, limits.ErrSlow), errors.Is(err, limits.ErrBusy): // agents drop what is 400
		e = api.Errorf(api.Unavailable, "%v", err)
		e.RetryAfter = time.Duration(1+rand.IntN(5)) * time.Second
	case errors.As(err, &d):
		kind, after := api.Forbidden, time.Duration(0)
		switch d.Status {
		case http.StatusMisdirectedRequest:
			kind = api.Misdirected
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
	w.Header()["Cache-Control"] = []string{"no-store"} // of what is at no route, too
	writeJSON(w, e.Status, e)
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // types of package api always encode
	}
	longpoll.WriteJSON(w, status, append(text, '\n'))
}

// readJSON reads a body of at most limit bytes. An empty object is for the endpoint to refuse.
func (s *Server) readJSON(c *call, limit int64, value any) error {
	body, done, err := s.body(c, s.room, limit, limit)
	if err != nil {
		return err
	}
	defer done()
	err = json.NewDecoder(body).Decode(value)
	var tooBig *http.MaxBytesError
	if errors.As(err, &tooBig) || errors.Is(err, limits.ErrSlow) {
		return err
	}
	if err != nil {
		return api.Errorf(api.BadRequest, "the body is not the JSON that belongs here: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// caller is who makes the request, for those who know nothing of HTTP.
func (c *call) caller() host.Caller {
	return host.Caller{Name: c.who.Name, TokenID: c.who.TokenID, Host: c.who.Host, Address: remoteAddress(c.req)}
}

// remoteAddress is where a request came from, without the port.
func remoteAddress(req *http.Request) string {
	address, _, err := net.SplitHostPort(req.RemoteAddr)
	if err != nil {
		return req.RemoteAddr
	}
	return address
}

// operateOr is the right to look at the hosts of a channel ("": of all): operators, and
// whoever may promote it and so has to know what became of that. A denial names the
// channel where one was named: it may be misspelt.
func (c *call) operateOr(channel string) error {
	err := c.need(access.Scope{Kind: access.Operate})
	promote := c.need(access.Scope{Kind: access.Promote, Glob: cmp.Or(channel, "*")})
	if err != nil && (promote == nil || channel != "" && c.who.Credential == access.Valid) {
		return promote
	}
	return err
}

// poll answers a poll, now or later: then it was taken off net/http, and c is not the caller's any more.
func (s *Server) poll(c *call, p longpoll.Poll) (err error) {
	p.Route, p.Park = c.route, limits.Park
	c.parked, err = s.polls.Serve(c.w, c.req, p)
	return err
}

// wakeAt wakes at a time whoever has joined a topic by then.
func (s *Server) wakeAt(t time.Time, topic string) {
	s.timers.First(t, topic, func() { s.polls.Notify(topic) })
}
