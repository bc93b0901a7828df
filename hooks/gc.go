package hooks

import (
	"net/http"

	"narwharf/hooks/api"
	"narwharf/hooks/reply"
)

// collect is POST /gc: a collection, or with ?dry_run=1 what it would do. GET /gc tells how far it is.
func (s *Server) collect(c *call) error {
	dry := c.req.URL.Query().Get("dry_run") == "1"
	if c.req.ContentLength != 0 {
		return api.Errorf(api.BadRequest, "a collection takes no body, but ?dry_run=1 and ?early=1")
	}
	early := c.req.URL.Query().Get("early") == "1"
	if dry {
		plan, err := s.collector.Plan(c.req.Context(), early)
		return answerJSON(c, http.StatusOK, plan, err)
	}
	st, err := s.collector.Collect(c.ctx(), early, c.Who.Name)
	return answerJSON(c, http.StatusAccepted, st, err)
}

// answerJSON answers with a value, unless there is an error.
func answerJSON(c *call, status int, value any, err error) error {
	if err != nil {
		return err
	}
	reply.JSON(c.w, status, value)
	return nil
}

func (s *Server) getCollected(c *call) error {
	st, err := s.collector.Status(c.req.Context())
	return answerJSON(c, http.StatusOK, st, err)
}

// getUsage is GET /du: who takes how much. Who may promote a channel may ask about that.
func (s *Server) getUsage(c *call) error {
	of := c.req.URL.Query().Get("channel")
	if of != "" && s.channels.Get(of).State.Seq == 0 {
		return s.channels.Get(of).Absent()
	}
	usage, err := s.collector.Usage(c.req.Context(), of)
	return answerJSON(c, http.StatusOK, usage, err)
}
