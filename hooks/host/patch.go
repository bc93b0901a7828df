package host

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"unicode"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
)

// Patch is what people say of a host; what is left out stays, a label that is null
// goes.
type Patch struct {
	Labels map[string]*string `json:"labels"`
	Hold   *api.Hold          `json:"hold"`
	Unhold bool               `json:"unhold"`
}

// Check refuses a patch that says nothing.
func (p *Patch) Check() error {
	if p.Labels == nil && p.Hold == nil && !p.Unhold {
		return api.Errorf(api.BadRequest, `send {"labels":{…}}, {"hold":{"reason":…}} or {"unhold":true}`)
	}
	if p.Hold != nil && p.Hold.Reason == "" {
		return api.Errorf(api.BadRequest, "a hold needs a reason: people will ask")
	}
	return nil
}

// Patch sets labels and hold.
func (h *Hosts) Patch(ctx context.Context, who Caller, host string, p *Patch) error {
	return h.set.Update(ctx, []string{Lock(host)}, func(tx *mirror.Tx) (err error) {
		old := h.In(tx, host)
		if old == nil {
			return Unknown(host)
		}
		if err := who.Over(old); err != nil {
			return err
		}
		e := api.Event{By: who.Name, Host: host}
		if old.Status != nil {
			e.Channel = old.Status.Channel
		}
		note := func(kind, text string) {
			e.Kind, e.Text = kind, text
			audit.Note(tx, e)
		}
		next := *old
		switch {
		case p.Hold != nil:
			hold := *p.Hold
			hold.By = who.Name
			next.Hold = &hold
			note("host.held", fmt.Sprintf("%s is held: %s", host, p.Hold.Reason))
		case p.Unhold:
			next.Hold = nil
			note("host.unheld", host+" is no longer held")
		}
		if p.Labels != nil {
			if next.Labels, err = relabel(old.Labels, p.Labels); err != nil {
				return err
			}
			note("host.labelled", fmt.Sprintf("%s has %d labels", host, len(next.Labels)))
		}
		h.Put(tx, host, &next)
		return nil
	})
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
