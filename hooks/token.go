package hooks

import (
	"net/http"

	"narwharf/hooks/exchange"
	"narwharf/hooks/reply"
	"narwharf/signing/access"
)

// exchangeToken gives a token for a JWT. Whoever has one has no other credential, so bodies are read
// before anything is known of who asks: short ones, in a room of their own.
func (s *Server) exchangeToken(c *call) error {
	body, done, err := s.body(c, s.strangers, exchange.MaxBody, exchange.MaxBody)
	if err != nil {
		return err
	}
	defer done()
	from := exchange.Caller{Address: c.Who.Address, Request: reply.RequestID(c.w)}
	answer, err := s.exchange.Exchange(c.req.Context(), c.req.Header.Get("Content-Type"), body, from)
	if err == nil {
		reply.JSON(c.w, http.StatusOK, answer)
	}
	return err
}

// endToken is DELETE /token: whoever has a short-lived token may end it. It has to be in the header: a
// browser would send a cookie for any page.
func (s *Server) endToken(c *call) error {
	if err := s.exchange.End(c.ctx(), &c.Who, access.Presented(c.req) != ""); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
