// Package gate answers what is at /api/v1/checks, /api/v1/reboots and /fleetlock: what a change
// has to pass.
package gate

import (
	"net/http"
	"sync"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/gate"
	"narwharf/hooks/call"
	"narwharf/hooks/rollout/check"
	"narwharf/signing/access/scope"
)

// Checks answers what is about the checks of the configuration.
type Checks struct {
	Set *check.Set // nil: there are none
	// Release is the current release of a channel and its systems.
	Release func(channel string) (seq int64, paths []string, err error)

	asking sync.Map // names of those that are asked for somebody now
}

// List is GET /checks.
func (h *Checks) List(c *call.Call) error {
	list := make([]gate.Check, 0, 8)
	for _, name := range h.Set.Names() {
		if k := h.Set.Get(name); k != nil {
			list = append(list, gate.Check{
				Name: name, Kind: k.Kind(), Asks: k.Asks(), Failures: k.Failures,
				IntervalS: int64(k.Interval.Seconds()), TimeoutS: int64(k.Timeout.Seconds()),
			})
		}
	}
	return c.JSON(http.StatusOK, map[string]any{"checks": list}, nil)
}

// Ask is POST /checks/{name}: it asks now, of the release of ?channel= if that is named. One
// check is asked for one caller at a time.
func (h *Checks) Ask(c *call.Call) error {
	name, about := c.Param("check"), check.About{Channel: c.Query.Get("channel")}
	if err := check.Name(name); err != nil {
		return api.Errorf(api.BadRequest, "the check's %v", err)
	}
	if c.Req.ContentLength != 0 {
		return api.Errorf(api.BadRequest, "to ask a check takes no body, but ?channel=NAME")
	}
	k := h.Set.Get(name)
	if k == nil {
		return api.Errorf(api.NotFound, "%v", h.Set.Unknown([]string{name}))
	}
	if about.Channel != "" {
		err := c.May(scope.Scope{Kind: scope.Operate, Glob: about.Channel})
		if err == nil {
			about.Seq, about.Paths, err = h.Release(about.Channel)
		}
		if err != nil {
			return err
		}
	}
	if _, busy := h.asking.LoadOrStore(name, true); busy {
		e := api.Errorf(api.Unavailable, "somebody asks the check %s already: ask again when that is answered", name)
		e.RetryAfter = time.Second
		return e
	}
	defer h.asking.Delete(name)
	ctx, done := c.UntilStop()
	defer done()
	a := k.Ask(ctx, &about)
	return c.JSON(http.StatusOK, &gate.Answer{
		Check: name, Said: string(a.Said), Detail: a.Detail, TookMS: a.Took.Milliseconds(), Channel: about.Channel, Seq: about.Seq,
	}, nil)
}
