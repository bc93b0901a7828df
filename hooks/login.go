package hooks

import (
	"net/http"

	"narwharf/hooks/exchange"
	"narwharf/hooks/reply"
)

// getLogin is GET /login: how one can log in, and who the caller is already.
func (s *Server) getLogin(c *call) error {
	return answerJSON(c, http.StatusOK, exchange.Info(s.issuers, &c.Who, reply.Actor(&c.Who)), nil)
}
