package credentials

import (
	"net/http"

	"narwharf/hooks/call"
	"narwharf/hooks/exchange"
	"narwharf/hooks/reply"
	"narwharf/signing/access"
)

// ExchangeToken gives a token for a JWT. Whoever has one has no other credential, so bodies are read
// before anything is known of who asks: short ones, in a room of their own.
func (h *Handlers) ExchangeToken(c *call.Call) error {
	body, done, err := c.Body(c.Rooms.Strangers, exchange.MaxBody, exchange.MaxBody)
	if err != nil {
		return err
	}
	defer done()
	from := exchange.Caller{Address: c.Who.Address, Request: reply.RequestID(c.W)}
	answer, err := h.Exchange.Exchange(c.Req.Context(), c.Req.Header.Get("Content-Type"), body, from)
	if err == nil {
		reply.JSON(c.W, http.StatusOK, answer)
	}
	return err
}

// EndToken is DELETE /token: whoever has a short-lived token may end it. It has to be in the header: a
// browser would send a cookie for any page.
func (h *Handlers) EndToken(c *call.Call) error {
	return c.Done(h.Exchange.End(c.Ctx(), &c.Who, access.Presented(c.Req) != ""))
}
