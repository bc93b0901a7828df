package hooks

import (
	"encoding/json"
	"net/http"

	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/longpoll"
	"narwharf/hooks/policy"
)

// getPolicy answers with an empty policy where none was set.
func (s *Server) getPolicy(c *call, name string) error {
	return s.poll(c, longpoll.Poll{Topics: []string{audit.Channel(name)}, Look: func() (longpoll.Answer, error) {
		etag, text := s.policies.Of(name).Encode()
		return longpoll.Answer{Status: http.StatusOK, ETag: etag, Body: text}, nil
	}})
}

// putPolicy replaces a policy, and lets the hosts look anew.
func (s *Server) putPolicy(c *call, name string) error {
	var raw json.RawMessage
	if err := s.readJSON(c, policy.MaxSize, &raw); err != nil {
		return err
	}
	p, err := policy.Parse(raw)
	if err != nil {
		return err
	}
	match := c.req.Header.Get("If-Match")
	err = s.policies.Set(c.ctx(), name, p, func(etag string) error {
		if match == "" || longpoll.Matches(match, etag) {
			return nil
		}
		return api.Errorf(api.RaceLost, "the policy of %s is %s, not %s: somebody else changed it; look at it and change it again", name, etag, match)
	}, c.Who.Name)
	if err != nil {
		return err
	}
	etag, text := p.Encode()
	c.w.Header().Set("Etag", etag)
	longpoll.WriteJSON(c.w, http.StatusOK, text)
	return nil
}
