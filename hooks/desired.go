package hooks

import (
	"net/http"

	"narwharf/hooks/audit"
	"narwharf/hooks/call"
	"narwharf/hooks/desired"
	"narwharf/hooks/longpoll"
)

// getDesired is the agent's poll.
func (s *Server) getDesired(c *call.Call, name string) error {
	w, err := desired.ReadWanted(c.Req.URL.Query(), name)
	if err != nil {
		return err
	}
	w.Have.Asked = s.clock()
	ctx, who := c.Ctx(), c.Caller()
	if err := s.hosts.AdmitPoll(ctx, who, name, w.Channel, w.Self); err != nil {
		return err
	}
	if err := s.Fleet.Review(ctx, name, w.Self.BootID); err != nil {
		return err
	}
	ask := s.Fleet.Tell
	if c.Req.Method == http.MethodHead {
		ask = s.Fleet.For // it is no agent that would act on it
	}
	p := s.hosts.Presence(name)
	number, back := p.Arrive(s.clock(), w.Channel, w.Target)
	if back {
		s.Rollouts.Came(name)
		s.shared.Polls.Notify(audit.Hosts(w.Channel)...)
	}
	return c.Poll(longpoll.Poll{
		Topics: []string{audit.Channel(w.Channel), audit.Host(name)},
		Also:   func() []string { return s.Fleet.SlotTopics(name) },
		Over: func(gone bool) {
			offline := p.Leave(s.clock(), number, gone) // unless it polls again
			if !s.hosts.Known(name) {
				s.hosts.Unsee(name) // to ask makes no host
				return
			}
			for _, topic := range audit.Hosts(w.Channel) {
				s.wakeAt(offline, topic)
			}
		},
		Look: func() (longpoll.Answer, error) {
			if err := s.hosts.Refused(who, name, w.Self); err != nil {
				return longpoll.Answer{}, err // the name has gone to another since
			}
			a, err := ask(name, w.Channel, w.Target, w.Have)
			if err != nil {
				return longpoll.Answer{}, err
			}
			return a.Encode()
		},
	})
}
