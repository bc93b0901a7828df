package credentials

import (
	"net/http"

	"narwharf/hooks/call"
	"narwharf/hooks/exchange"
	"narwharf/hooks/reply"
)

// Login is GET /login: how one can log in, and who the caller is already.
func (h *Handlers) Login(c *call.Call) error {
	return c.JSON(http.StatusOK, exchange.Info(h.Issuers, &c.Who, reply.Actor(&c.Who)), nil)
}
