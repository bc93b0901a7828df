package hooks

import (
	"errors"
	"net/http"
	"time"

	"narwharf/cache/limits"
	"narwharf/hooks/api"
	"narwharf/hooks/api/proof"
	"narwharf/hooks/audit"
	"narwharf/hooks/intake"
	"narwharf/hooks/reply"
)

// challenge makes the nonce over which a machine proves who it is. Anybody may ask for one:
// nothing is kept of it.
func (s *Server) challenge(c *call) error {
	var ask proof.Challenge
	if err := s.readJSON(c, 1<<10, &ask); err != nil {
		return err
	}
	if err := intake.CheckJoin(&api.Join{Host: ask.Host, Channel: "any", Instance: ask.Instance, Proof: new(proof.Proof)}); err != nil {
		return err
	}
	reply.JSON(c.w, http.StatusOK, s.Identities.Challenge(&ask))
	return nil
}

// join makes the token of a host for a join token or, without any token, for a proof.
func (s *Server) join(c *call) error {
	limit := int64(4 << 10)
	if c.Proves {
		limit = 32 << 10 // a JWT has at most 16 KiB
		if !s.work.Spend(limits.Who("", c.req), 0) {
			return api.Errorf(api.Unavailable, "%v", limits.ErrBusy)
		}
	}
	var j api.Join
	err := s.readJSON(c, limit, &j)
	if err == nil {
		err = intake.CheckJoin(&j)
	}
	if err == nil && (!c.Proves || j.Proof == nil) {
		c.Proves, err = false, c.About(j.Channel)
	}
	if err != nil {
		return err
	}
	joined := &api.Joined{Host: j.Host, Channel: j.Channel}
	if c.Proves {
		joined, err = s.Identities.Join(c.ctx(), s.hosts, &j, c.Who.Address)
		if refused := (*api.Error)(nil); errors.As(err, &refused) && refused.Status < 500 {
			s.work.Spend(limits.Who("", c.req), 100*time.Millisecond) // whoever sends many waits
		}
	} else {
		joined.Token, err = s.hosts.Join(c.ctx(), c.caller(), &j)
	}
	if err != nil {
		return err
	}
	s.hosts.Presence(joined.Host).Touch(s.clock(), j.Channel, joined.Host)
	s.polls.Notify(audit.Hosts(j.Channel)...)
	reply.JSON(c.w, http.StatusCreated, joined)
	return nil
}
