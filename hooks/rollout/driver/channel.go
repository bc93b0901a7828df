package driver

import (
	"fmt"
	"time"

	"narwharf/hooks/policy"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/logbook"
	rules "narwharf/hooks/rollout/policy"
	"narwharf/signing"
)

// rulesOf is the part of a policy that is the engine's, nil for none.
func rulesOf(p *policy.Policy) *rules.Policy {
	if p.Rollout == nil && p.Requires == nil {
		return nil
	}
	return &rules.Policy{Rollout: p.Rollout, Requires: p.Requires}
}

// policySet tells the engine of a channel's policy.
func (d *Driver) policySet(name string, p *policy.Policy, seq int64) rollout.PolicySet {
	return rollout.PolicySet{Channel: name, Policy: rulesOf(p), Reboots: p.RebootSlots > 0 || asksReboot(d.release(name, seq))}
}

func asksReboot(r *rollout.Release) bool {
	if r == nil {
		return false
	}
	for _, e := range r.Entries {
		if e.Action == string(signing.Reboot) {
			return true
		}
	}
	return false
}

// govern looks which channels have a rollout policy.
func (d *Driver) govern(now time.Time) {
	governed := make(map[string]*governed)
	for name, p := range d.o.Policies.All() {
		if p.Rollout != nil {
			governed[name] = newGoverned(p, now)
		}
	}
	d.governed = governed
}

func newGoverned(p *policy.Policy, now time.Time) *governed {
	g := &governed{policy: p}
	g.open, g.next = p.Open(now)
	return g
}

// channelEvents are what is new of a channel: its policy, its windows, a release that
// nobody made a roll-out of.
func (d *Driver) channelEvents(name string, now time.Time) (events []rollout.Event) {
	p, was := d.o.Policies.Of(name), d.governed[name]
	switch {
	case p.Rollout == nil && was == nil:
		if c := d.e.Channels[name]; c != nil || p.Requires != nil {
			events = append(events, rollout.PolicySet{Channel: name, Policy: rulesOf(p)})
		}
		return events
	case p.Rollout == nil:
		delete(d.governed, name)
		events = append(events, rollout.PolicySet{Channel: name, Policy: rulesOf(p)})
		return append(events, d.hostsOf(name, now)...)
	case was == nil:
		d.governed[name] = newGoverned(p, now)
		events = append(events, d.policySet(name, p, d.runSeq(name)), rollout.Window{Channel: name, Open: d.governed[name].open})
		events = append(events, d.hostsOf(name, now)...)
	case was.policy != p:
		is := newGoverned(p, now)
		if d.governed[name] = is; rulesChanged(was.policy, p) {
			events = append(events, d.policySet(name, p, d.runSeq(name)))
		}
		if is.open != was.open {
			events = append(events, rollout.Window{Channel: name, Open: is.open})
		}
	}
	return append(events, d.unmade(name)...)
}

func rulesChanged(was, is *policy.Policy) bool {
	one, _ := was.Encode()
	two, _ := is.Encode()
	return one != two
}

// hostsOf are the hosts of a channel, which is governed from now on, or is not any more.
func (d *Driver) hostsOf(name string, now time.Time) (events []rollout.Event) {
	for host, r := range d.o.Hosts.Records() {
		if r.Status != nil && r.Status.Channel == name {
			events = append(events, d.hostEvents(host, now)...)
		}
	}
	return events
}

func (d *Driver) windowEvent(name string, g *governed, now time.Time) []rollout.Event {
	was := g.open
	if g.open, g.next = g.policy.Open(now); g.open == was {
		return nil
	}
	return []rollout.Event{rollout.Window{Channel: name, Open: g.open}}
}

// runSeq is the seq of a channel's roll-out, 0 if it has none.
func (d *Driver) runSeq(name string) int64 {
	if c := d.e.Channels[name]; c != nil {
		return c.Row.Seq
	}
	return 0
}

// unmade is for a release of which there is no roll-out. It was promoted while the channel
// was not governed: everyone could begin with it, so it has completed. But if nothing at all
// is known of the channel the rows were lost, and a person has to say whether it goes on. A
// release that is not to be given to anybody is paused.
func (d *Driver) unmade(name string) (events []rollout.Event) {
	now, c := d.o.Channels.Get(name), d.e.Channel(name)
	last := c.Row.Seq
	if c.Row.Queued != nil {
		last = c.Row.Queued.Seq
	}
	pause := func(seq int64, why string) {
		events = append(events, rollout.Verb{Channel: name, Seq: seq, Verb: rollout.Pause, By: logbook.By, Reason: why})
	}
	if seq := now.State.Current; now.Release != nil && seq > last {
		events = append(events, rollout.Promote{Channel: name, Seq: seq, Everyone: last > 0, Rollback: now.Head.Rollback})
		if last == 0 {
			pause(seq, "what was decided about it was lost with the state: resume if hosts shall go on with it, or promote another")
		}
		return events
	}
	if c.Run == nil || c.Run.Row.State != rollout.Running && c.Run.Row.State != rollout.Planned {
		return events
	}
	switch {
	case now.State.Bad != 0 && now.State.Bad == c.Row.Seq:
		pause(c.Row.Seq, "a key that signed it was revoked: promote another release")
	case now.State.Deleted:
		pause(c.Row.Seq, fmt.Sprintf("the channel %s was deleted", name))
	}
	return events
}
