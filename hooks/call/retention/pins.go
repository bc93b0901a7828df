package retention

import (
	"net/http"

	"narwharf/hooks/api/retention"
	"narwharf/hooks/call"
	"narwharf/hooks/retain"
)

// OfPin is a handler of what is about the pin in its path.
func OfPin(serve func(c *call.Call, name string) error) func(c *call.Call) error {
	return func(c *call.Call) error {
		name := c.Param("pin")
		if err := retain.CheckPin(name); err != nil {
			return err
		}
		return serve(c, name)
	}
}

// Pins is GET /pins.
func (h *Handlers) Pins(c *call.Call) error {
	return c.JSON(http.StatusOK, map[string]any{"pins": h.Retain.Pins()}, nil)
}

// Pin is GET /pins/{name}.
func (h *Handlers) Pin(c *call.Call, name string) error {
	p, err := h.Retain.Pin(name)
	return c.JSON(http.StatusOK, p, err)
}

// PutPin makes a pin, or replaces the one of that name.
func (h *Handlers) PutPin(c *call.Call, name string) error {
	var ask retention.Pin
	if err := c.ReadJSON(64<<10, &ask); err != nil {
		return err
	}
	ask.Name = name
	ctx, cancel := c.UntilStop()
	defer cancel()
	p, err := h.Retain.SetPin(ctx, &ask, c.Who.Name)
	return c.JSON(http.StatusOK, p, err)
}

// DeletePin is DELETE /pins/{name}.
func (h *Handlers) DeletePin(c *call.Call, name string) error {
	return c.Done(h.Retain.Unpin(c.Ctx(), name, c.Who.Name))
}
