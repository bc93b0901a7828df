package hooks

import (
	"net/http"

	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/host"
	"narwharf/signing/access"
)

// join makes the token of a host for a join token.
func (s *Server) join(c *call) error {
	if err := c.needSome(access.Join, ""); err != nil {
		return err
	}
	var j api.Join
	if err := s.readJSON(c, 4<<10, &j); err != nil {
		return err
	}
	if err := host.CheckJoin(&j); err != nil {
		return err
	}
	if err := c.need(access.Scope{Kind: access.Join, Glob: j.Channel}); err != nil {
		return err
	}
	secret, err := s.hosts.Join(c.req.Context(), c.caller(), &j)
	if err != nil {
		return err
	}
	s.hosts.Presence(j.Host).Touch(s.clock(), j.Channel, j.Host)
	s.polls.Notify(audit.Hosts(j.Channel)...)
	writeJSON(c.w, http.StatusCreated, api.Joined{Host: j.Host, Channel: j.Channel, Token: secret})
	return nil
}
