package retention

import (
	"net/http"

	"narwharf/hooks/api"
	"narwharf/hooks/call"
)

// Collect is POST /gc: a collection, or with ?dry_run=1 what it would do. GET /gc tells how far it is.
func (h *Handlers) Collect(c *call.Call) error {
	dry := c.Req.URL.Query().Get("dry_run") == "1"
	if c.Req.ContentLength != 0 {
		return api.Errorf(api.BadRequest, "a collection takes no body, but ?dry_run=1 and ?early=1")
	}
	early := c.Req.URL.Query().Get("early") == "1"
	if dry {
		plan, err := h.Collector.Plan(c.Req.Context(), early)
		return c.JSON(http.StatusOK, plan, err)
	}
	st, err := h.Collector.Collect(c.Ctx(), early, c.Who.Name)
	return c.JSON(http.StatusAccepted, st, err)
}

// Collected is GET /gc.
func (h *Handlers) Collected(c *call.Call) error {
	st, err := h.Collector.Status(c.Req.Context())
	return c.JSON(http.StatusOK, st, err)
}

// Usage is GET /du: who takes how much. Who may promote a channel may ask about that.
func (h *Handlers) Usage(c *call.Call) error {
	of := c.Req.URL.Query().Get("channel")
	if of != "" && h.Channels.Get(of).State.Seq == 0 {
		return h.Channels.Get(of).Absent()
	}
	usage, err := h.Collector.Usage(c.Req.Context(), of)
	return c.JSON(http.StatusOK, usage, err)
}
