package hooks

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"narwharf/cache/limits"
	"narwharf/hooks/audit"
	"narwharf/hooks/host"
	"narwharf/hooks/longpoll"
	"narwharf/hooks/reply"
	"narwharf/hooks/rights"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

// call is a request on its way through an endpoint.
type call struct {
	rights.Request
	w   http.ResponseWriter
	req *http.Request
	row *row
	// parked is set when the request was taken off net/http: whoever parked
	// it answers and counts it.
	parked bool
}

// answer calls an endpoint and counts the reply.
func (s *Server) answer(r *row, c *call) error {
	c.w.Header()["Cache-Control"] = []string{"no-store"}
	limits.Begin(c.w, c.req)
	counted := limits.NewAnswer(c.w)
	c.w, c.row = counted, r
	err := c.CheckNames()
	if err == nil {
		err = c.Meet(r.Needs)
	}
	if err == nil {
		err = r.serve(c)
	}
	if err != nil {
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
	switch c.Who.Credential {
	case access.Unchecked:
		s.log.Error("a token could not be checked", "path", c.req.URL.Path, "request", reply.RequestID(c.w), "error", c.Who.Err)
	default:
		s.refused(c.ctx(), &c.Who, c.row.Name, d)
	}
}

// Refused notes what somebody may not do at a URL that is not of the API.
func (s *Server) Refused(who *access.Principal, route string, d *access.Denied) {
	s.refused(audit.For(context.Background(), reply.Actor(who), ""), who, route, d)
}

// refused notes it if a good credential was shown, or one that was.
func (s *Server) refused(ctx context.Context, who *access.Principal, route string, d *access.Denied) {
	switch who.Credential {
	case access.Valid, access.Revoked, access.Expired:
		s.refusals.Note(ctx, who.TokenID, route, d.Error())
	}
}

// ctx is in which the call changes something: the audit log knows then for whom.
func (c *call) ctx() context.Context {
	return audit.For(c.req.Context(), reply.Actor(&c.Who), reply.RequestID(c.w))
}

func (s *Server) count(route string, status int) {
	s.metrics.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
}

// body is that of a call, of at most limit bytes, of which held are in memory at once.
func (s *Server) body(c *call, room *limits.Room, limit, held int64) (body io.Reader, done func(), err error) {
	done, err = room.Take(c.req, held)
	return limits.Body(c.w, c.req, limit, s.bodyIdle), done, err
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
	who := host.Caller{Name: c.Who.Name, TokenID: c.Who.TokenID, Host: c.Who.Host, Owner: c.Who.Grant.Owner, Address: c.Who.Address}
	if c.Need.Where == scope.OfHost {
		who.May = c.About
	}
	return who
}

// poll answers a poll, now or later: then it was taken off net/http, and c is not the caller's any more.
func (s *Server) poll(c *call, p longpoll.Poll) (err error) {
	p.Route, p.Park, p.Ends = c.row.Name, limits.Park, c.Who.Ends
	if topic := c.Who.Topic(); topic != "" { // of the request nothing is held
		id, met, look := c.Who.TokenID, c.Right, p.Look
		p.Topics = append(slices.Clip(p.Topics), topic)
		p.Look = func() (longpoll.Answer, error) {
			if d := s.access.Still(context.Background(), id, met); d != nil {
				return longpoll.Answer{}, d
			}
			return look()
		}
	}
	c.parked, err = s.polls.Serve(c.w, c.req, p)
	return err
}

// wakeAt wakes at a time whoever has joined a topic by then.
func (s *Server) wakeAt(t time.Time, topic string) {
	s.timers.First(t, topic, func() { s.polls.Notify(topic) })
}
