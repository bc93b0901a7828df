package hooks

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"unicode"

	"narwharf/hooks/api"
)

// patchHost sets labels and hold; what is left out stays, a label that is null
// goes.
func (s *Server) patchHost(c *call) error {
	name, err := operatedHost(c)
	if err != nil {
		return err
	}
	var p struct {
		Labels map[string]*string `json:"labels"`
		Hold   *api.Hold          `json:"hold"`
		Unhold bool               `json:"unhold"`
	}
	if err := readJSON(c, 64<<10, &p); err != nil {
		return err
	}
	if p.Labels == nil && p.Hold == nil && !p.Unhold {
		return api.Errorf(api.BadRequest, `send {"labels":{…}}, {"hold":{"reason":…}} or {"unhold":true}`)
	}
	if p.Hold != nil && p.Hold.Reason == "" {
		return api.Errorf(api.BadRequest, "a hold needs a reason: people will ask")
	}
	channel := ""
	defer s.reporting.Lock(name)()
	_, err = s.store.update(s.clock(), func(ch *change) error {
		old := s.store.host(name)
		if old == nil {
			return unknownHost(name)
		}
		next := *old
		if old.Status != nil {
			channel = old.Status.Channel
		}
		switch {
		case p.Hold != nil:
			p.Hold.By = c.who.Name
			next.Hold = p.Hold
			ch.note(api.Event{Kind: "host.held", By: c.who.Name, Host: name, Channel: channel, Text: fmt.Sprintf("%s is held: %s", name, p.Hold.Reason)})
		case p.Unhold:
			next.Hold = nil
			ch.note(api.Event{Kind: "host.unheld", By: c.who.Name, Host: name, Channel: channel, Text: name + " is no longer held"})
		}
		if p.Labels != nil {
			labels, err := relabel(old.Labels, p.Labels)
			if err != nil {
				return err
			}
			next.Labels = labels
			ch.note(api.Event{Kind: "host.labelled", By: c.who.Name, Host: name, Channel: channel, Text: fmt.Sprintf("%s has %d labels", name, len(next.Labels))})
		}
		return ch.putHost(name, &next)
	})
	if err != nil {
		return err
	}
	s.noted(channel, hostTopic(name))
	writeJSON(c.w, http.StatusOK, s.describeHost(name, s.store.host(name)).Host)
	return nil
}

const maxLabels = 64

var labelGrammar = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._/-]{0,62}$`)

// relabel is a host's labels after a change, in a map of its own.
func relabel(old map[string]string, change map[string]*string) (map[string]string, error) {
	next := maps.Clone(old)
	if next == nil {
		next = make(map[string]string)
	}
	for name, value := range change {
		switch {
		case value == nil:
			delete(next, name)
		case !labelGrammar.MatchString(name):
			return nil, api.Errorf(api.BadRequest, "%q is not the name of a label: letters, digits, . _ - and /, 63 at most", name)
		case len(*value) > 256 || strings.ContainsFunc(*value, unicode.IsControl):
			return nil, api.Errorf(api.BadRequest, "the value of the label %s is longer than 256 bytes or has control characters in it", name)
		default:
			next[name] = *value
		}
	}
	if len(next) > maxLabels {
		return nil, api.Errorf(api.BadRequest, "%d labels are more than %d", len(next), maxLabels)
	}
	return next, nil
}

func (s *Server) deleteHost(c *call) error {
	name, err := operatedHost(c)
	if err != nil {
		return err
	}
	h := s.describeHost(name, s.store.host(name))
	if h.LastSeen.IsZero() && h.Identity == nil {
		return unknownHost(name)
	}
	defer s.reporting.Lock(name)()
	if err := s.revokeJoined(c.req.Context(), name, ""); err != nil {
		return err
	}
	sl := s.slots.of(name)
	_, err = s.store.update(s.clock(), func(ch *change) error {
		if err := s.forgetIdentity(ch, name); err != nil {
			return err
		}
		ch.note(api.Event{Kind: "host.removed", By: c.who.Name, Host: name, Channel: h.channel, Text: "removed " + name + " from the list of hosts"})
		if sl != nil {
			if err := ch.endSlot(name, sl, c.who.Name, fmt.Sprintf("%s is removed: its reboot slot of the group %s is free", name, sl.Group)); err != nil {
				return err
			}
		}
		return ch.removeHost(name)
	})
	if err != nil {
		return err
	}
	if sl != nil {
		s.slotEnded(name, sl)
	}
	s.mu.Lock()
	delete(s.seen, name)
	s.mu.Unlock()
	s.noted(h.channel, hostTopic(name))
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
