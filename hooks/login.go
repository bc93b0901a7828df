package hooks

import (
	"net/http"

	"narwharf/hooks/api/login"
	"narwharf/hooks/reply"
	"narwharf/signing/access"
)

// getLogin is GET /login: how one can log in, and who the caller is already.
func (s *Server) getLogin(c *call) error {
	info := login.Info{Issuers: s.issuers}
	if info.Issuers == nil {
		info.Issuers = []login.Issuer{}
	}
	if c.Who.Credential == access.Valid {
		actor := reply.Actor(&c.Who)
		info.You = &login.You{
			Credential: actor.Credential, Name: actor.Name, Subject: actor.Subject, Host: c.Who.Host, Ends: c.Who.Ends, Scopes: []string{},
		}
		for _, sc := range c.Who.Scopes {
			info.You.Scopes = append(info.You.Scopes, sc.String())
		}
	}
	return answerJSON(c, http.StatusOK, info, nil)
}
