package hooks

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"narwharf/cache/limits"
	"narwharf/hooks/audit"
	"narwharf/hooks/host"
	"narwharf/hooks/longpoll"
	"narwharf/hooks/reply"
	"narwharf/signing"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
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
		if d := (*access.Denied)(nil); errors.As(err, &d) {
			s.denied(c, d)
		}
		reply.Error(counted, c.req, err, s.log)
	}
	if !c.parked {
		s.count(r.Name, cmp.Or(counted.Status, http.StatusOK))
	}
	return nil
}

// denied notes that somebody may not do what he asked for.
func (s *Server) denied(c *call, d *access.Denied) {
	switch c.who.Credential {
	case access.Unchecked:
		s.log.Error("a token could not be checked", "path", c.req.URL.Path, "request", reply.RequestID(c.w), "error", c.who.Err)
	case access.Valid, access.Revoked, access.Expired:
		s.refusals.Note(c.ctx(), c.who.TokenID, c.route, d.Error())
	}
}

// ctx is in which the call changes something: the audit log knows then for whom.
func (c *call) ctx() context.Context {
	return audit.For(c.req.Context(), reply.Actor(&c.who), reply.RequestID(c.w))
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
func (c *call) need(right scope.Scope) error { return c.needAs(c.who.Host, right) }

// needAs is need of a host, as itself.
func (c *call) needAs(host string, right scope.Scope) error {
	if d := c.who.DenyAs(right, host); d != nil {
		return d
	}
	return nil
}

// needSome checks that the caller has a scope of a kind for some channel, as host if
// that is not "". It is for what names its channel in the body, of which nothing is read
// before.
func (c *call) needSome(kind scope.Kind, host string) error {
	need := scope.Scope{Kind: kind, Glob: "*"}
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

// readJSON reads a body of at most limit bytes.
func (s *Server) readJSON(c *call, limit int64, value any) error {
	body, done, err := s.body(c, s.room, limit, limit)
	if err != nil {
		return err
	}
	defer done()
	return reply.Decode(body, value)
}

// caller is who makes the request, for those who know nothing of HTTP.
func (c *call) caller() host.Caller {
	return host.Caller{Name: c.who.Name, TokenID: c.who.TokenID, Host: c.who.Host, Address: c.who.Address}
}

// operateOr is the right to look at the hosts of a channel ("": of all): operators, and
// whoever may promote it and so has to know what became of that. A denial names the
// channel where one was named: it may be misspelt.
func (c *call) operateOr(channel string) error {
	err := c.need(scope.Scope{Kind: scope.Operate})
	promote := c.need(scope.Scope{Kind: scope.Promote, Glob: cmp.Or(channel, "*")})
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
