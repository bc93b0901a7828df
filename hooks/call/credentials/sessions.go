package credentials

import (
	"errors"
	"net/http"

	"narwharf/hooks/api"
	"narwharf/hooks/call"
	"narwharf/hooks/sessions"
	"narwharf/signing/access"
	"narwharf/signing/access/shortlived"
)

// knows refuses whoever shows no good credential: without one there is nobody whose sessions could be his.
func knows(c *call.Call) error {
	if c.Who.Credential == access.Unchecked || c.Who.Credential == access.Valid {
		return nil
	}
	return access.Refuse(http.StatusUnauthorized, "sessions are of who asks, and the request has no credential that is good: narwharf login gets one")
}

// ListSessions is GET /sessions: one's own, and for an admin all.
func (h *Handlers) ListSessions(c *call.Call) error {
	if err := knows(c); err != nil {
		return err
	}
	return c.InTurn(func() (any, error) {
		return map[string]any{"sessions": sessions.List(c.Req.Context(), h.Sessions, &c.Who, h.Clock())}, nil
	})
}

// EndSession is DELETE /sessions/{id}, or with "all" for the id all of one's own.
func (h *Handlers) EndSession(c *call.Call) error {
	if err := knows(c); err != nil {
		return err
	}
	err := h.Sessions.Update(c.Ctx(), func(change shortlived.Change) error {
		_, err := sessions.End(change, &c.Who, c.Param("session"))
		return err
	})
	if errors.Is(err, shortlived.ErrNotFound) {
		err = api.Errorf(api.NotFound, "there is no such session of yours, or it has ended: narwharf access sessions lists them")
	}
	return c.Done(err)
}
