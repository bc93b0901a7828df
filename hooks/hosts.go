package hooks

import (
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/desired"
	"narwharf/hooks/host"
	"narwharf/hooks/longpoll"
	"narwharf/signing"
)

func (s *Server) listHosts(c *call) error {
	channel := c.req.URL.Query().Get("channel")
	if channel != "" {
		if err := signing.CheckChannel(channel); err != nil {
			return api.Errorf(api.BadRequest, "%v", err)
		}
	}
	if err := c.operateOr(channel); err != nil {
		return err
	}
	return s.poll(c, longpoll.Poll{Topics: []string{audit.HostsOf(channel)}, Look: func() (longpoll.Answer, error) {
		list, next, err := s.Fleet.List(channel)
		if err != nil {
			return longpoll.Answer{}, err
		}
		if !next.IsZero() {
			s.wakeAt(next, audit.HostsOf(channel))
		}
		q := c.req.URL.Query()
		return desired.Page(list, q.Has("after"), q.Get("after"))
	}})
}

func (s *Server) getHost(c *call, name string) error {
	d, err := s.Fleet.Describe(name)
	if err != nil {
		return err
	}
	if err := c.operateOr(d.Channel); err != nil {
		return err
	}
	if !d.Known() {
		return host.Unknown(name)
	}
	return s.poll(c, longpoll.Poll{Topics: []string{audit.HostsOf(d.Channel), audit.Host(name)}, Look: func() (longpoll.Answer, error) {
		d, err := s.Fleet.Describe(name)
		if err != nil {
			return longpoll.Answer{}, err
		}
		if !d.Until.IsZero() {
			s.wakeAt(d.Until, audit.Host(name))
		}
		return longpoll.JSON(d.Host)
	}})
}
