package credentials

import (
	"errors"
	"net/http"
	"time"

	"narwharf/cache/limits"
	"narwharf/hooks/api"
	"narwharf/hooks/api/proof"
	"narwharf/hooks/audit"
	"narwharf/hooks/call"
	"narwharf/hooks/intake"
	"narwharf/hooks/reply"
)

// Challenge makes the nonce over which a machine proves who it is. Anybody may ask for one:
// nothing is kept of it.
func (h *Handlers) Challenge(c *call.Call) error {
	var ask proof.Challenge
	if err := c.ReadJSON(1<<10, &ask); err != nil {
		return err
	}
	if err := intake.CheckJoin(&api.Join{Host: ask.Host, Channel: "any", Instance: ask.Instance, Proof: new(proof.Proof)}); err != nil {
		return err
	}
	reply.JSON(c.W, http.StatusOK, h.Identities.Challenge(&ask))
	return nil
}

// Join makes the token of a host for a join token or, without any token, for a proof.
func (h *Handlers) Join(c *call.Call) error {
	limit := int64(4 << 10)
	if c.Proves {
		limit = 32 << 10 // a JWT has at most 16 KiB
		if !c.Work.Spend(limits.Who("", c.Req), 0) {
			return api.Errorf(api.Unavailable, "%v", limits.ErrBusy)
		}
	}
	var j api.Join
	err := c.ReadJSON(limit, &j)
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
		joined, err = h.Identities.Join(c.Ctx(), h.Hosts, &j, c.Who.Address)
		if refused := (*api.Error)(nil); errors.As(err, &refused) && refused.Status < 500 {
			c.Work.Spend(limits.Who("", c.Req), 100*time.Millisecond) // whoever sends many waits
		}
	} else {
		joined.Token, err = h.Hosts.Join(c.Ctx(), c.Caller(), &j)
	}
	if err != nil {
		return err
	}
	h.Hosts.Presence(joined.Host).Touch(h.Clock(), j.Channel, joined.Host)
	c.Polls.Notify(audit.Hosts(j.Channel)...)
	reply.JSON(c.W, http.StatusCreated, joined)
	return nil
}
