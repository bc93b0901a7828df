package host

import (
	"context"
	"fmt"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/intake"
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
			if next.Labels, err = intake.Relabel(old.Labels, p.Labels); err != nil {
				return err
			}
			note("host.labelled", fmt.Sprintf("%s has %d labels", host, len(next.Labels)))
		}
		h.Put(tx, host, &next)
		return nil
	})
}
