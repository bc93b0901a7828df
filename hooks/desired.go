package hooks

import (
	"cmp"
	"net/http"
	"strconv"

	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/host"
	"narwharf/hooks/intake"
	"narwharf/hooks/longpoll"
	"narwharf/signing"
)

// selfOf is which machine a poll or log is of.
func selfOf(req *http.Request) (api.Self, error) {
	q := req.URL.Query()
	self := api.Self{Instance: q.Get("instance"), Machine: intake.Clean(q.Get("machine"), 1<<10), BootID: intake.Clean(q.Get("boot"), 1<<10)}
	return self, host.CheckSelf(self)
}

// wanted is what an agent's poll asks about.
type wanted struct {
	channel, target string
	seen            int64 // the seq that the agent knows; -1: it does not say
	self            api.Self
}

// readWanted reads the query of a host's poll.
func readWanted(req *http.Request, host string) (w wanted, err error) {
	q := req.URL.Query()
	w.channel, w.target, w.seen = q.Get("channel"), cmp.Or(q.Get("target"), host), -1
	if err := signing.CheckTarget(w.target); err != nil {
		return w, api.Errorf(api.BadRequest, "%v", err)
	}
	if text := q.Get("seq"); text != "" {
		if w.seen, err = strconv.ParseInt(text, 10, 64); err != nil || w.seen < 0 {
			return w, api.Errorf(api.BadRequest, "?seq=%s is no seq", text)
		}
	}
	w.self, err = selfOf(req)
	return w, err
}

// getDesired is the agent's poll.
func (s *Server) getDesired(c *call, name string) error {
	w, err := readWanted(c.req, name)
	if err != nil {
		return err
	}
	ctx, who := c.ctx(), c.caller()
	if err := s.hosts.AdmitPoll(ctx, who, name, w.channel, w.self); err != nil {
		return err
	}
	if err := s.Fleet.Review(ctx, name, w.self.BootID); err != nil {
		return err
	}
	ask := s.Fleet.Tell
	if c.req.Method == http.MethodHead {
		ask = s.Fleet.For // it is no agent that would act on it
	}
	p := s.hosts.Presence(name)
	number, back := p.Arrive(s.clock(), w.channel, w.target)
	if back {
		s.polls.Notify(audit.Hosts(w.channel)...)
	}
	return s.poll(c, longpoll.Poll{
		Topics: []string{audit.Channel(w.channel), audit.Host(name)},
		Also:   func() []string { return s.Fleet.SlotTopics(name) },
		Over: func(gone bool) {
			offline := p.Leave(s.clock(), number, gone) // unless it polls again
			if !s.hosts.Known(name) {
				s.hosts.Unsee(name) // to ask makes no host
				return
			}
			for _, topic := range audit.Hosts(w.channel) {
				s.wakeAt(offline, topic)
			}
		},
		Look: func() (longpoll.Answer, error) {
			if err := s.hosts.Refused(who, name, w.self); err != nil {
				return longpoll.Answer{}, err // the name has gone to another since
			}
			a, err := ask(name, w.channel, w.target, w.seen)
			if err != nil {
				return longpoll.Answer{}, err
			}
			return a.Encode()
		},
	})
}
