package hooks

import (
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/call"
	"narwharf/hooks/desired"
	"narwharf/hooks/host"
	"narwharf/hooks/longpoll"
)

func (s *Server) listHosts(c *call.Call) error {
	q := c.Req.URL.Query()
	channel, sees := q.Get("channel"), c.Sees()
	return c.Poll(longpoll.Poll{Topics: []string{audit.HostsOf(channel)}, Look: func() (longpoll.Answer, error) {
		list, next, err := s.Fleet.List(func(of string) bool { return (channel == "" || of == channel) && sees(of) })
		if err != nil {
			return longpoll.Answer{}, err
		}
		if !next.IsZero() {
			s.wakeAt(next, audit.HostsOf(channel))
		}
		return desired.Page(list, q.Has("after"), q.Get("after"))
	}})
}

func (s *Server) getHost(c *call.Call, name string) error {
	d, err := s.Fleet.Describe(name)
	if err != nil {
		return err
	}
	if !d.Known() && len(s.Identities.Asks(name)) == 0 {
		return host.Unknown(name) // it may have polled
	}
	sees := c.Sees()
	return c.Poll(longpoll.Poll{Topics: []string{audit.HostsOf(d.Channel), audit.Host(name)}, Look: func() (longpoll.Answer, error) {
		d, err := s.Fleet.Describe(name)
		if err == nil && d.Known() && !sees(d.Channel) {
			err = api.Errorf(api.NotFound, "%s follows another channel now", name)
		}
		if err != nil {
			return longpoll.Answer{}, err
		}
		if !d.Until.IsZero() {
			s.wakeAt(d.Until, audit.Host(name))
		}
		d.Asks = s.Identities.Asks(name)
		return longpoll.JSON(d.Host)
	}})
}

// channelOf is the channel of a host that is known here.
func (s *Server) channelOf(name string) (string, error) {
	d, err := s.Fleet.Describe(name)
	if err == nil && !d.Known() && d.Channel == "" {
		if asks := s.Identities.Asks(name); len(asks) > 0 {
			return asks[0].Channel, nil
		}
		err = host.Unknown(name)
	}
	if err != nil {
		return "", err
	}
	return d.Channel, nil
}
