package hooks

import (
	"encoding/json"
	"net/http"

	"narwharf/hooks/api"
	told "narwharf/hooks/api/policy"
	"narwharf/hooks/audit"
	"narwharf/hooks/call"
	"narwharf/hooks/longpoll"
	"narwharf/hooks/policy"
	rules "narwharf/hooks/rollout/policy"
)

// getPolicy answers with an empty policy where none was set.
func (s *Server) getPolicy(c *call.Call, name string) error {
	return c.Poll(longpoll.Poll{Topics: []string{audit.Channel(name)}, Look: func() (longpoll.Answer, error) {
		etag, text := s.policies.Of(name).Encode()
		return longpoll.Answer{Status: http.StatusOK, ETag: etag, Body: text}, nil
	}})
}

// putPolicy replaces a policy, and lets the hosts look anew.
func (s *Server) putPolicy(c *call.Call, name string) error {
	var raw json.RawMessage
	if err := c.ReadJSON(policy.MaxSize, &raw); err != nil {
		return err
	}
	p, err := policy.Parse(raw)
	if err != nil {
		return err
	}
	if err := s.checks.Set.Unknown(p.Rollout.Asked()); err != nil {
		return api.Errorf(api.BadRequest, "the policy: %v", err)
	}
	match := c.Req.Header.Get("If-Match")
	err = s.Rollouts.SetPolicy(c.Ctx(), name, p, func(etag string) error {
		if match == "" || longpoll.Matches(match, etag) {
			return nil
		}
		return api.Errorf(api.RaceLost, "the policy of %s is %s, not %s: somebody else changed it; look at it and change it again", name, etag, match)
	}, c.Who.Name)
	if err != nil {
		return err
	}
	etag, _ := p.Encode()
	warnings, err := s.nobody(name, p)
	c.W.Header().Set("Etag", etag)
	return c.JSON(http.StatusOK, told.Set{Channel: p.Channel, Warnings: warnings}, err)
}

// nobody is what of a policy's selectors picks none of the hosts that there are, in words.
func (s *Server) nobody(name string, p *policy.Policy) ([]string, error) {
	if p.Rollout == nil {
		return nil, nil
	}
	hosts, _, err := s.Fleet.List(func(channel string) bool { return channel == name })
	if err != nil || len(hosts) == 0 {
		return nil, err
	}
	var labels []map[string]string
	for i := range hosts {
		labels = append(labels, hosts[i].Labels)
	}
	return (&rules.Policy{Rollout: p.Rollout}).Nobody(labels), nil
}
