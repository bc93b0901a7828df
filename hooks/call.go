package hooks

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"narwharf/cache/limits"
	"narwharf/hooks/audit"
	"narwharf/hooks/call"
	"narwharf/hooks/reply"
	"narwharf/signing/access"
)

// answer calls an endpoint and counts the reply.
func (s *Server) answer(r *row, c *call.Call) error {
	c.W.Header()["Cache-Control"] = []string{"no-store"}
	limits.Begin(c.W, c.Req)
	counted := limits.NewAnswer(c.W)
	c.W, c.Route = counted, r.Name
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
		reply.Error(counted, c.Req, err, s.log)
	}
	if !c.Parked {
		s.count(r.Name, cmp.Or(counted.Status, http.StatusOK))
	}
	return nil
}

// denied notes that somebody may not do what he asked for.
func (s *Server) denied(c *call.Call, d *access.Denied) {
	switch c.Who.Credential {
	case access.Unchecked:
		s.log.Error("a token could not be checked", "path", c.Req.URL.Path, "request", reply.RequestID(c.W), "error", c.Who.Err)
	default:
		s.refused(c.Ctx(), &c.Who, c.Route, d)
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

func (s *Server) count(route string, status int) {
	s.metrics.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
}

// wakeAt wakes at a time whoever has joined a topic by then.
func (s *Server) wakeAt(t time.Time, topic string) {
	s.timers.First(t, topic, func() { s.shared.Polls.Notify(topic) })
}
