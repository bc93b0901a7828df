package hooks

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"narwharf/hooks/api"
	"narwharf/signing"
	"narwharf/signing/access"
)

// join makes the token of a host for a join token. A token that is for this host
// alone makes it the owner of its name, whoever was: that is what it was made
// for. With others the name has to be free, as mayJoin has it: who holds one may
// become a host, and not take the place of one.
func (s *Server) join(c *call) error {
	var j api.Join
	if err := readJSON(c, 4<<10, &j); err != nil {
		return err
	}
	self := api.Self{Instance: j.Instance, Machine: j.Machine}
	switch err := checkSelf(self); {
	case !hostGrammar.MatchString(j.Host):
		return api.Errorf(api.BadRequest, "host %q is not a host name", j.Host)
	case j.Instance == "":
		return api.Errorf(api.BadRequest, "instance is missing")
	case err != nil:
		return err
	}
	if err := signing.CheckChannel(j.Channel); err != nil {
		return api.Errorf(api.BadRequest, "%v", err)
	}
	if err := c.need(access.Scope{Kind: access.Join, Glob: j.Channel}); err != nil {
		return err
	}
	if s.tokens == nil {
		return api.Errorf(api.NotFound, "this server makes no tokens")
	}
	unlock := s.reporting.Lock(j.Host)
	secret, err := s.joinAs(c, &j, self)
	unlock()
	if err != nil {
		return err
	}
	s.presence(j.Host).touch(s.clock(), j.Channel, j.Host)
	s.noted(j.Channel, hostTopic(j.Host))
	writeJSON(c.w, http.StatusCreated, api.Joined{Host: j.Host, Channel: j.Channel, Token: secret})
	return nil
}

// joinAs does it, with the name locked. Tokens are another table: if the second
// transaction fails, or its answer is lost, the host asks again and gets another
// token for the same use.
func (s *Server) joinAs(c *call, j *api.Join, self api.Self) (secret string, err error) {
	o := s.identities.owner(j.Host)
	replaces := s.foreign(o, j.Host, self, c.who)
	if c.who.Host != j.Host {
		if err := s.mayJoin(c, o, j, self); err != nil {
			return "", err
		}
	}
	secret, fresh, err := access.NewHost(j.Host, j.Channel, s.clock())
	if err != nil {
		return "", err
	}
	fresh.By = "join token " + c.who.Name
	var refused *access.JoinError
	switch err := s.tokens.Redeem(c.req.Context(), c.who.TokenID, self.Instance, fresh); {
	case errors.As(err, &refused):
		return "", api.Errorf(api.Forbidden, "%v", err)
	case errors.Is(err, access.ErrExists):
		return "", api.Errorf(api.IdentityConflict, "the host's token would be named %s, and there is one of that name which no join made: first narwharf token revoke %[1]s", fresh.Name)
	case err != nil:
		return "", err
	}
	_, err = s.store.update(s.clock(), func(ch *change) error {
		next := s.newOwner(j.Host, self)
		text := fmt.Sprintf("%s joined %s by the join token %s", j.Host, j.Channel, c.who.Name)
		switch {
		case replaces:
			text += fmt.Sprintf(", in place of the machine that had the name (%s)", instanceText(o.Instance))
			if err := s.clearReport(ch, j.Host); err != nil {
				return err
			}
		case o != nil && o.Instance == self.Instance:
			next.Since, next.Was, next.Claims = o.Since, o.Was, o.Claims
		}
		next.Token = fresh.Name
		ch.note(api.Event{Kind: "host.joined", By: c.who.Name, Channel: j.Channel, Host: j.Host, Text: text,
			Data: map[string]string{"instance": self.Instance, "machine": self.Machine, "address": remoteAddress(c.req), "token": fresh.ID}})
		if replaces {
			if err := s.putSightings(ch, sightKey(j.Host, self.Instance), nil); err != nil {
				return err
			}
		}
		return s.putOwner(ch, j.Host, next)
	})
	return secret, err
}

// mayJoin refuses a join by a token for hosts of any name where the name is not
// free. An instance is no secret, so to say the owner's proves nothing, but for a
// repetition with the very token and for an owner that has no token of its own.
// The name is to be locked.
func (s *Server) mayJoin(c *call, o *owner, j *api.Join, self api.Self) error {
	ctx := c.req.Context()
	token, err := s.tokens.Lookup(ctx, c.who.TokenID)
	if err != nil {
		return err
	}
	now := s.clock()
	for _, u := range token.Used {
		if u.Host == j.Host && u.Instance == self.Instance && now.Sub(u.At) < access.Patience && (o == nil || o.Instance == self.Instance) {
			return nil
		}
	}
	if o != nil && o.Instance != self.Instance {
		if err := s.noteClaim(c, o, j.Host, j.Channel, self); err != nil {
			return err
		}
		return conflict(o, j.Host, self)
	}
	list, err := s.tokens.List(ctx)
	if err != nil {
		return err
	}
	taken := slices.ContainsFunc(list, func(t access.Token) bool { return t.Host == j.Host && t.Joined != "" && t.Active(now) })
	if r := s.store.host(j.Host); o == nil && r != nil && r.Status != nil {
		taken = true // by an agent, or a server, from before instances
	}
	if !taken {
		return nil
	}
	s.log.Warn("a join by the name of a host that is here", "host", j.Host, "by", c.who.Name, "address", remoteAddress(c.req))
	return api.Errorf(api.IdentityConflict,
		"%s is here already. If this machine is to have the name: narwharf token new --join %s --host %[1]s makes a join token for it, or narwharf host remove %[1]s forgets the other. If not, give it a name of its own (host in the agent's configuration)",
		j.Host, j.Channel)
}
