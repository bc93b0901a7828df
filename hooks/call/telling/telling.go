// Package telling answers what is at /api/v1/alarms and notify: what people have to look at, and
// how they are told.
package telling

import (
	"cmp"
	"context"
	"net/http"

	"narwharf/hooks/alarm"
	"narwharf/hooks/api"
	wire "narwharf/hooks/api/alarm"
	"narwharf/hooks/call"
	"narwharf/hooks/notify"
	"narwharf/signing"
)

// Handlers answer them.
type Handlers struct {
	Alarms *alarm.Book
	Notify *notify.Sender
}

// caller is who asks for alarms. What is of no channel is for those who may act on all.
func caller(c *call.Call) alarm.Caller {
	return alarm.Caller{Name: c.Who.Name, Sees: c.Sees(), May: func(channel string) error { return c.About(cmp.Or(channel, "*")) }}
}

// List is GET /alarms.
func (h *Handlers) List(c *call.Call) error {
	query := c.Req.URL.Query()
	q := wire.Query{Channel: query.Get("channel"), Closed: query.Get("closed") == "1"}
	if q.Channel != "" {
		if err := signing.CheckChannel(q.Channel); err != nil {
			return api.Errorf(api.BadRequest, "%v", err)
		}
	}
	list, err := h.Alarms.List(c.Req.Context(), q, caller(c))
	return c.JSON(http.StatusOK, map[string]any{"alarms": list}, err)
}

// Take is POST /alarms/{id}/take.
func (h *Handlers) Take(c *call.Call) error { return h.act(c, h.Alarms.Take) }

// Close is POST /alarms/{id}/close.
func (h *Handlers) Close(c *call.Call) error { return h.act(c, h.Alarms.Close) }

func (h *Handlers) act(c *call.Call, do func(ctx context.Context, id, reason string, who alarm.Caller) (*wire.Alarm, error)) error {
	if err := h.Alarms.Check(c.Ctx(), c.Param("alarm"), caller(c)); err != nil {
		return err
	}
	reason, err := word(c, "reason")
	if err != nil {
		return err
	}
	a, err := do(c.Ctx(), c.Param("alarm"), reason, caller(c))
	return c.JSON(http.StatusOK, a, err)
}

// word reads a body {"name":"…"}, which may be left out as a whole.
func word(c *call.Call, name string) (string, error) {
	if c.Req.ContentLength == 0 {
		return "", nil
	}
	var body map[string]string
	if err := c.ReadJSON(8<<10, &body); err != nil {
		return "", err
	}
	if body[name] == "" {
		return "", api.Errorf(api.BadRequest, `send {%q:"…"}, or no body`, name)
	}
	return body[name], nil
}

// Targets is GET /notify.
func (h *Handlers) Targets(c *call.Call) error {
	return c.JSON(http.StatusOK, map[string]any{"targets": h.Notify.List()}, nil)
}

// Test is POST /notify/{target}/test.
func (h *Handlers) Test(c *call.Call) error {
	name := c.Param("target")
	if err := notify.CheckName(name); err != nil {
		return err
	}
	text, err := word(c, "text")
	if err != nil {
		return err
	}
	a, err := h.Notify.Test(c.Ctx(), name, text, c.Who.Name)
	return c.JSON(http.StatusOK, a, err)
}
