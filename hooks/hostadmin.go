package hooks

import (
	"context"
	"net/http"

	"narwharf/hooks/api"
	"narwharf/hooks/call"
	"narwharf/hooks/host"
	"narwharf/hooks/intake"
)

// ofHost is an endpoint about the host in its path.
func ofHost(serve func(c *call.Call, name string) error) endpoint {
	return func(c *call.Call) error { return serve(c, c.Param("host")) }
}

// operated is an endpoint that changes a host, which is answered with what is known
// of it then.
func (s *Server) operated(change func(c *call.Call, name string) error) endpoint {
	return ofHost(func(c *call.Call, name string) error {
		if err := change(c, name); err != nil {
			return err
		}
		d, err := s.Fleet.Describe(name)
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, d.Host, nil)
	})
}

// operatedSeq is one with a body {"seq":N}: about which release an operator speaks of
// a host, since there may be another meanwhile.
func (s *Server) operatedSeq(change func(ctx context.Context, who host.Caller, name string, seq int64) error) endpoint {
	return s.operated(func(c *call.Call, name string) error {
		var body struct {
			Seq int64 `json:"seq"`
		}
		if err := c.ReadJSON(1<<10, &body); err != nil {
			return err
		}
		if body.Seq < 1 {
			return api.Errorf(api.BadRequest, `send {"seq":N}, the release that is meant`)
		}
		return change(c.Ctx(), c.Caller(), name, body.Seq)
	})
}

// patchHost sets labels and hold.
func (s *Server) patchHost(c *call.Call, name string) error {
	var p host.Patch
	if err := c.ReadJSON(64<<10, &p); err != nil {
		return err
	}
	if err := p.Check(); err != nil {
		return err
	}
	return s.hosts.Patch(c.Ctx(), c.Caller(), name, &p)
}

func (s *Server) deleteHost(c *call.Call, name string) error {
	return c.Done(s.Fleet.Remove(c.Ctx(), c.Caller(), name))
}

// approveHost says which machine has a host's name.
func (s *Server) approveHost(c *call.Call, name string) error {
	var p struct {
		Instance *string `json:"instance"`
		Key      string  `json:"key"` // of a host that joins by it
	}
	if err := c.ReadJSON(4<<10, &p); err != nil {
		return err
	}
	if p.Key != "" && p.Instance == nil {
		return s.Identities.Approve(c.Ctx(), c.Who.Name, name, p.Key, c.About)
	}
	if p.Instance == nil || intake.CheckSelf(api.Self{Instance: *p.Instance}) != nil {
		return api.Errorf(api.BadRequest, `send {"instance":"…"}, 32 hex digits: narwharf host show %s lists the machines that claim the name`, name)
	}
	d, err := s.Fleet.Describe(name)
	if err != nil {
		return err
	}
	return s.hosts.Approve(c.Ctx(), c.Caller(), name, d.Channel, *p.Instance)
}

// refuseHost says that a key by which a machine asks to be the host is not its key.
func (s *Server) refuseHost(c *call.Call, name string) error {
	var p struct {
		Key string `json:"key"`
	}
	if err := c.ReadJSON(4<<10, &p); err != nil {
		return err
	}
	return c.Done(s.Identities.Refuse(c.Ctx(), c.Who.Name, name, p.Key, c.About))
}

// listAsks lists the keys by which machines ask to be hosts.
func (s *Server) listAsks(c *call.Call) error {
	channel, sees := c.Query.Get("channel"), c.Sees()
	list := s.Identities.List(func(a *api.Ask) bool { return (channel == "" || a.Channel == channel) && sees(a.Channel) })
	if list == nil {
		list = []api.Ask{}
	}
	return c.JSON(http.StatusOK, map[string]any{"asks": list}, nil)
}

// directHost asks a host to try its entry again that failed, or to leave a release for
// the last system that it found well before.
func (s *Server) directHost(what string) endpoint {
	return s.operatedSeq(func(ctx context.Context, who host.Caller, name string, seq int64) error {
		return s.Fleet.Direct(ctx, who, name, what, seq)
	})
}

// releaseHost takes the reboot slot of a host that will not come back.
func (s *Server) releaseHost() endpoint { return s.operatedSeq(s.Fleet.Release) }
