package hooks

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"narwharf/hooks/api"
)

// approveHost says which machine has a host's name: one that claims it, or the
// one that has it already, after which the others are forgotten, and that it
// was cloned.
func (s *Server) approveHost(c *call) error {
	name, err := operatedHost(c)
	if err != nil {
		return err
	}
	var p struct {
		Instance *string `json:"instance"`
	}
	if err := readJSON(c, 4<<10, &p); err != nil {
		return err
	}
	if p.Instance == nil || checkSelf(api.Self{Instance: *p.Instance}) != nil {
		return api.Errorf(api.BadRequest, `send {"instance":"…"}, 32 hex digits: narwharf host show %s lists the machines that claim the name`, name)
	}
	unlock := s.reporting.Lock(name)
	channel, err := s.approve(c, name, *p.Instance)
	unlock()
	if err != nil {
		return err
	}
	s.noted(channel, hostTopic(name))
	writeJSON(c.w, http.StatusOK, s.describeHost(name, s.store.host(name)).Host)
	return nil
}

func (s *Server) approve(c *call, name, instance string) (channel string, err error) {
	o := s.identities.owner(name)
	if o == nil {
		return "", unknownHost(name)
	}
	channel = s.describeHost(name, s.store.host(name)).channel
	at := slices.IndexFunc(o.Claims, func(x claim) bool { return x.Instance == instance && x.Withdrawn.IsZero() })
	if at < 0 && instance != o.Instance {
		return "", api.Errorf(api.NotFound, "no machine of that instance claims to be %s: narwharf host show %s lists those that do", name, name)
	}
	next := *o
	next.Claims = nil
	text := fmt.Sprintf("%s is the machine it was (%s), whatever else claimed to be", name, instanceText(instance))
	if at >= 0 {
		next = *s.newOwner(name, o.Claims[at].self())
		text = fmt.Sprintf("%s is another machine now, %s, approved in place of %s", name, instanceText(instance), instanceText(o.Instance))
	}
	if at >= 0 {
		// First, and whether or not the operator still waits: the name must not
		// go to one machine while the token of the other stays good.
		if err := s.revokeJoined(context.WithoutCancel(c.req.Context()), name, o.Claims[at].TokenID); err != nil {
			return "", err
		}
	}
	_, err = s.store.update(s.clock(), func(ch *change) error {
		ch.note(api.Event{Kind: "host.approved", By: c.who.Name, Channel: channel, Host: name, Text: text, Data: map[string]string{"instance": instance, "was": o.Instance}})
		if err := s.putSightings(ch, sightKey(name, instance), nil); err != nil {
			return err
		}
		if at >= 0 {
			if err := s.clearReport(ch, name); err != nil {
				return err
			}
		}
		return s.putOwner(ch, name, &next)
	})
	return channel, err
}

func (c claim) self() api.Self { return api.Self{Instance: c.Instance, Machine: c.Machine} }

// clearReport forgets what another machine said as this host; what people said
// of the host stays.
func (s *Server) clearReport(ch *change, host string) error {
	old := s.store.host(host)
	if old == nil {
		return nil
	}
	return ch.putHost(host, &hostRecord{Labels: old.Labels, Hold: old.Hold})
}

// revokeJoined revokes the tokens that joins made for a host, but one.
func (s *Server) revokeJoined(ctx context.Context, host, except string) error {
	if s.tokens == nil {
		return nil
	}
	list, err := s.tokens.List(ctx)
	if err != nil {
		return err
	}
	for _, t := range list {
		if t.Host == host && t.Joined != "" && t.Revoked.IsZero() && t.ID != except {
			if _, err := s.tokens.Revoke(ctx, t.ID, s.clock()); err != nil {
				return err
			}
		}
	}
	return nil
}
