package hooks

import (
	"io"
	"mime"
	"net/http"
	"net/url"

	"narwharf/hooks/api"
	"narwharf/hooks/exchange"
	"narwharf/hooks/reply"
	"narwharf/signing/access"
)

// exchangeToken gives a token for a JWT. Whoever has one has no other credential, so bodies are read
// before anything is known of who asks: short ones, in a room of their own.
func (s *Server) exchangeToken(c *call) error {
	const most = 64 << 10
	if media, _, err := mime.ParseMediaType(c.req.Header.Get("Content-Type")); err != nil || media != "application/x-www-form-urlencoded" {
		return api.Errorf(api.BadRequest, "send a form: Content-Type application/x-www-form-urlencoded")
	}
	body, done, err := s.body(c, s.strangers, most, most)
	if err != nil {
		return err
	}
	defer done()
	text, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	form, err := url.ParseQuery(string(text))
	if err != nil {
		return api.Errorf(api.BadRequest, "the body is no form")
	}
	answer, err := s.exchange.Exchange(c.req.Context(), form, exchange.Caller{Address: c.Who.Address, Request: reply.RequestID(c.w)})
	if err != nil {
		return err
	}
	reply.JSON(c.w, http.StatusOK, answer)
	return nil
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
