package hooks

import (
	"io"
	"net/http"

	"narwharf/hooks/api"
	"narwharf/hooks/desired"
	"narwharf/hooks/host"
	"narwharf/hooks/intake"
	"narwharf/hooks/longpoll"
)

// putStatus takes a host's report. Its channel stands in the body, so what the caller
// may be at all is checked before, and that channel after.
func (s *Server) putStatus(c *call, name string) error {
	body, done, err := s.body(c, s.hostRoom, intake.MaxSize, intake.MaxHeld)
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
	if err := s.Fleet.Report(c.ctx(), c.caller(), name, st); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// postLog keeps the end of what an attempt printed.
func (s *Server) postLog(c *call, name string) error {
	q := c.req.URL.Query()
	attempt, channel := q.Get("attempt"), c.Right.Glob
	if err := host.CheckAttempt(attempt); err != nil {
		return err
	}
	self, err := desired.ReadSelf(c.req.URL.Query())
	if err != nil {
		return err
	}
	ctx := c.ctx()
	if err := s.hosts.AdmitPoll(ctx, c.caller(), name, channel, self); err != nil {
		return err
	}
	body, done, err := s.body(c, s.hostRoom, host.MaxLog, host.MaxLog)
	if err != nil {
		return err
	}
	defer done()
	text, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	if err := s.hosts.PutLog(ctx, name, attempt, text); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// getLog serves the log of an attempt, the last one if none is named.
func (s *Server) getLog(c *call, name string) error {
	text, err := s.hosts.Log(name, c.req.URL.Query().Get("attempt"))
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	longpoll.WriteJSON(c.w, http.StatusOK, text)
	return nil
}
