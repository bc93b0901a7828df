package hooks

import (
	"io"
	"net/http"

	"narwharf/hooks/api"
	"narwharf/hooks/call"
	"narwharf/hooks/desired"
	"narwharf/hooks/host"
	"narwharf/hooks/intake"
	"narwharf/hooks/longpoll"
)

// putStatus takes a host's report. Its channel stands in the body, so what the caller
// may be at all is checked before, and that channel after.
func (s *Server) putStatus(c *call.Call, name string) error {
	body, done, err := c.Body(c.Rooms.Hosts, intake.MaxSize, intake.MaxHeld)
	if err != nil {
		return err
	}
	defer done()
	st, err := intake.Status(body, c.About)
	if err != nil {
		return err
	}
	if err := intake.CheckStatus(st); err != nil {
		return api.Errorf(api.BadRequest, "%v", err)
	}
	if err := c.About(st.Channel); err != nil {
		return err
	}
	return c.Done(s.Fleet.Report(c.Ctx(), c.Caller(), name, st))
}

// postLog keeps the end of what an attempt printed.
func (s *Server) postLog(c *call.Call, name string) error {
	q := c.Req.URL.Query()
	attempt, channel := q.Get("attempt"), c.Right.Glob
	if err := host.CheckAttempt(attempt); err != nil {
		return err
	}
	self, err := desired.ReadSelf(c.Req.URL.Query())
	if err != nil {
		return err
	}
	ctx := c.Ctx()
	if err := s.hosts.AdmitPoll(ctx, c.Caller(), name, channel, self); err != nil {
		return err
	}
	body, done, err := c.Body(c.Rooms.Hosts, host.MaxLog, host.MaxLog)
	if err != nil {
		return err
	}
	defer done()
	text, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	return c.Done(s.hosts.PutLog(ctx, name, attempt, text))
}

// getLog serves the log of an attempt, the last one if none is named.
func (s *Server) getLog(c *call.Call, name string) error {
	text, err := s.hosts.Log(name, c.Req.URL.Query().Get("attempt"))
	if err != nil {
		return err
	}
	c.W.Header().Set("Content-Type", "text/plain; charset=utf-8")
	longpoll.WriteJSON(c.W, http.StatusOK, text)
	return nil
}
