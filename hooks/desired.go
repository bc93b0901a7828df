package hooks

import (
	"net/http"
	"strconv"

	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/host"
	"narwharf/hooks/intake"
	"narwharf/hooks/longpoll"
	"narwharf/signing"
	"narwharf/signing/access"
)

// selfOf is which machine a poll or log is of.
func selfOf(req *http.Request) (api.Self, error) {
	q := req.URL.Query()
	self := api.Self{Instance: q.Get("instance"), Machine: intake.Clean(q.Get("machine"), 64), BootID: intake.Clean(q.Get("boot"), 64)}
	return self, host.CheckSelf(self)
}

// getDesired is the agent's poll.
func (s *Server) getDesired(c *call, name string) error {
	q := c.req.URL.Query()
	channel, target := q.Get("channel"), q.Get("target")
	if err := signing.CheckChannel(channel); err != nil {
		return api.Errorf(api.BadRequest, "add ?channel=NAME: %v", err)
	}
	if target == "" {
		target = name
	}
	if err := signing.CheckTarget(target); err != nil {
		return api.Errorf(api.BadRequest, "%v", err)
	}
	seen := int64(-1) // an agent that does not say it
	if text := q.Get("seq"); text != "" {
		var err error
		if seen, err = strconv.ParseInt(text, 10, 64); err != nil || seen < 0 {
			return api.Errorf(api.BadRequest, "?seq=%s is no seq", text)
		}
	}
	if err := c.needAs(name, access.Scope{Kind: access.Follow, Glob: channel}); err != nil {
		return err
	}
	self, err := selfOf(c.req)
	if err != nil {
		return err
	}
	ctx, who := c.req.Context(), c.caller()
	if err := s.hosts.AdmitPoll(ctx, who, name, channel, self); err != nil {
		return err
	}
	if err := s.Fleet.Review(ctx, name, self.BootID); err != nil {
		return err
	}
	ask := s.Fleet.Tell
	if c.req.Method == http.MethodHead {
		ask = s.Fleet.For // it is no agent that would act on it
	}
	p := s.hosts.Presence(name)
	number, back := p.Arrive(s.clock(), channel, target)
	if back {
		s.polls.Notify(audit.Hosts(channel)...)
	}
	return s.poll(c, longpoll.Poll{
		Topics: []string{audit.Channel(channel), audit.Host(name)},
		Also:   func() []string { return s.Fleet.SlotTopics(name) },
		Over: func(gone bool) {
			until := p.Leave(s.clock(), number, gone)
			if !s.hosts.Known(name) {
				s.hosts.Unsee(name) // to ask makes no host
				return
			}
			for _, topic := range audit.Hosts(channel) {
				s.wakeAt(until, topic)
			}
		},
		Look: func() (longpoll.Answer, error) {
			if err := s.hosts.Refused(who, name, self); err != nil {
				return longpoll.Answer{}, err // the name has gone to another since
			}
			a, err := ask(name, channel, target, seen)
			if err != nil {
				return longpoll.Answer{}, err
			}
			return a.Encode()
		},
	})
}
