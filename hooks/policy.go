package hooks

import (
	"encoding/json"
	"net/http"

	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/call"
	"narwharf/hooks/longpoll"
	"narwharf/hooks/policy"
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
	etag, text := p.Encode()
	c.W.Header().Set("Etag", etag)
	longpoll.WriteJSON(c.W, http.StatusOK, text)
	return nil
}
