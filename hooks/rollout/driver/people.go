package driver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/policy"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/limits"
)

// act takes a step for what a person says. also is done in its transaction.
func (d *Driver) act(ctx context.Context, ev rollout.Event, locks []string, also within) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.kick() // who is woken by it
	if err := d.ready(ctx); err != nil {
		return err
	}
	now := d.o.Clock()
	out, refused := d.e.Step(now, ev)
	if refused != nil {
		also = nil
	}
	if err := d.store(ctx, now, out, locks, also); err != nil {
		return err
	}
	return said(refused)
}

// Verb does what an operator says of a channel's roll-out.
func (d *Driver) Verb(ctx context.Context, v rollout.Verb) error {
	return d.act(ctx, v, nil, func(tx *mirror.Tx) error {
		text := fmt.Sprintf("%s release %d of %s", v.Verb, v.Seq, v.Channel)
		if v.Reason != "" {
			text += ": " + v.Reason
		}
		audit.Note(tx, api.Event{Kind: "rollout." + v.Verb, By: v.By, Channel: v.Channel, Seq: v.Seq, Host: v.Host, Text: text})
		return nil
	})
}

// Checked takes the answer of a check.
func (d *Driver) Checked(ctx context.Context, c rollout.Checked) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.kick()
	if !d.lease.Held() || d.e == nil {
		return nil // whoever drives asks, too
	}
	now := d.o.Clock()
	out, err := d.e.Step(now, c)
	if err != nil {
		return said(err)
	}
	return d.store(ctx, now, out, nil, nil)
}

// Wanted are the checks that are to be asked now, and again until they are not among them
// any more; none if another server drives.
func (d *Driver) Wanted() (list []rollout.Wanted) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.e == nil || !d.lease.Held() {
		return nil
	}
	for _, c := range d.e.Order {
		names, wave, since := d.e.Asks(c.Row.Name)
		if len(names) == 0 {
			continue
		}
		w := rollout.Wanted{Channel: c.Row.Name, Seq: c.Row.Seq, Wave: wave, Names: slices.Clone(names), Since: since}
		for _, e := range c.Run.Release.Entries {
			w.Paths = append(w.Paths, e.Path)
		}
		slices.Sort(w.Paths)
		w.Paths = slices.Compact(w.Paths)
		list = append(list, w)
	}
	return list
}

// SetPolicy replaces the policy of a channel, in one transaction with what that changes of
// its roll-out. matches is nil for the ETag of the one that the caller wants to replace.
func (d *Driver) SetPolicy(ctx context.Context, channel string, p *policy.Policy, matches func(etag string) error, by string) error {
	set := func(tx *mirror.Tx) error { return d.o.Policies.SetIn(tx, channel, p, matches, by) }
	lock := []string{policy.Lock(channel)}
	was := d.o.Policies.Of(channel)
	if rulesOf(was) == nil && rulesOf(p) == nil {
		return d.o.Set.Update(ctx, lock, set)
	}
	if etag, _ := was.Encode(); matches(etag) != nil {
		return matches(etag)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.kick()
	if err := d.ready(ctx); err != nil {
		return err
	}
	now := d.o.Clock()
	out, err := d.e.Step(now, d.replaced(channel, p, now)...)
	if err != nil {
		d.o.Log.Info("the roll-outs did not take something", "why", err)
	}
	return d.store(ctx, now, out, lock, set)
}

// replaced are the events of a policy that is set.
func (d *Driver) replaced(channel string, p *policy.Policy, now time.Time) []rollout.Event {
	was := d.governed[channel]
	delete(d.governed, channel)
	if p.Rollout != nil {
		d.governed[channel] = newGoverned(p, now)
	}
	events := []rollout.Event{d.policySet(channel, p, d.runSeq(channel))}
	if p.Rollout == nil {
		return append(events, d.hostsOf(channel, now)...)
	}
	events = append(events, rollout.Window{Channel: channel, Open: d.governed[channel].open})
	if was == nil {
		events = append(events, d.hostsOf(channel, now)...)
		if s := d.o.Channels.Get(channel); s.Release != nil {
			events = append(events, rollout.Promote{Channel: channel, Seq: s.State.Current, Everyone: true, Rollback: s.Head.Rollback})
		}
	}
	return events
}

// ---- limits over all channels

// Limits are the budgets, holds and freeze that people have set. What has ended by itself
// is not among them.
func (d *Driver) Limits() rollout.Limits { return limits.Now(d.rows, d.o.Clock()) }

// Frozen is the freeze, nil if there is none now.
func (d *Driver) Frozen() *rollout.Hold { return limits.Frozen(d.rows, d.o.Clock()) }

// Held is the hold that is on a host with some labels now, nil for none.
func (d *Driver) Held(labels map[string]string) *rollout.Hold {
	return limits.Held(d.rows, labels, d.o.Clock())
}

// SetBudget sets one, or takes it away if b is nil.
func (d *Driver) SetBudget(ctx context.Context, name string, b *rollout.Budget, by string) error {
	return d.limit(ctx, func() (*limits.Change, error) { return limits.Budget(d.rows, name, b, by) })
}

// SetHold sets one, or takes it away if h is nil.
func (d *Driver) SetHold(ctx context.Context, name string, h *rollout.Hold, by string) error {
	return d.limit(ctx, func() (*limits.Change, error) { return limits.Hold(d.rows, name, h, by) })
}

// SetFreeze lets nobody begin with anything, on any channel; nil ends it.
func (d *Driver) SetFreeze(ctx context.Context, h *rollout.Hold, by string) error {
	return d.limit(ctx, func() (*limits.Change, error) { return limits.Freeze(d.rows, h, by) })
}

// limit changes the limits, and wakes all hosts: they are told why they wait.
func (d *Driver) limit(ctx context.Context, change func() (*limits.Change, error)) error {
	c, err := change()
	if err != nil {
		return err
	}
	l := d.rows.Limits()
	c.Apply(&l)
	var wake []string
	for _, c := range d.o.Channels.List() {
		wake = append(wake, audit.Channel(c.Channel))
	}
	return d.act(ctx, l, nil, func(tx *mirror.Tx) error {
		c.Put(tx)
		tx.Notify(wake...)
		return nil
	})
}

// BudgetUse is how many hosts a budget counts, and how many of them are unavailable now.
func (d *Driver) BudgetUse(name string) (size, taken int) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.e == nil {
		return 0, 0
	}
	return d.e.BudgetUse(name)
}

// ---- quarantine

// Quarantined are the systems that are given to nobody, by path.
func (d *Driver) Quarantined() (list []rollout.Quarantine) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.e == nil {
		return nil
	}
	for _, q := range d.e.Quarantine {
		list = append(list, *q)
	}
	slices.SortFunc(list, func(a, b rollout.Quarantine) int { return strings.Compare(a.Key(), b.Key()) })
	return list
}

// Clear ends the quarantine of a system.
func (d *Driver) Clear(ctx context.Context, path, by string) error {
	return d.act(ctx, rollout.Clear{Path: path, By: by}, nil, func(tx *mirror.Tx) error {
		audit.Note(tx, api.Event{Kind: "quarantine.cleared", By: by, Text: path + " may be given to hosts again", Data: map[string]string{"path": path}})
		return nil
	})
}
