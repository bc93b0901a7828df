// Package engine decides who takes a release when: Step is told what happened and at
// what time, and returns the rows that change, who is to be woken, and what to log. It
// reads no clock, does no I/O, and draws no random numbers but by its seed: the same
// events give the same rows.
//
// # What it promises
//
//   - No more hosts are in flight than max_concurrency, and no more of a budget's are
//     unavailable than it lets; a place is held until the host has declared an end, or
//     surely has not begun.
//   - Nothing is granted while a roll-out is paused, halted, aborting, aborted or
//     superseded, or a freeze is on.
//   - Wave i+1 is granted only after wave i had enough hosts that are well, baked, and
//     got every yes that it needs – or a person said skip.
//   - A host is never shown less than it has accepted.
//   - An engine that is loaded from the rows of another goes on as that would.
//
// A step costs O(log n) for each host that it is about. What concerns a whole channel
// – a promote, a wave that opens, a state that changes – is once over its hosts.
package engine

import (
	"maps"
	"reflect"
	"time"

	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/policy"
	"narwharf/hooks/rollout/roster"
)

// Engine is the state of all roll-outs, in memory with what is counted of it.
type Engine struct {
	*roster.Roster
	fact time.Time // when what the events tell of happened, of several the last
}

// Options of New.
type Options struct {
	Releases rollout.Releases
	Seed     uint64
	// Began is when the driver did. Before that it has heard of nobody, so nobody is
	// offline before offline_after has passed since then.
	Began time.Time
}

// New makes an engine that knows of nothing.
func New(o Options) *Engine {
	return &Engine{Roster: roster.New(o.Releases, o.Seed, o.Began)}
}

// Step takes events, all of them before it decides anything, and then what time alone
// changes. An event that is refused changes nothing; the first refusal is returned.
func (e *Engine) Step(now time.Time, events ...rollout.Event) (*rollout.Changes, error) {
	e.Now = now
	e.fact = time.Time{}
	var refused error
	for _, ev := range events {
		if err := e.take(ev); err != nil && refused == nil {
			refused = err
		}
	}
	if e.fact.IsZero() || e.fact.After(now) {
		e.fact = now
	}
	e.Expire()
	e.limitsOver()
	e.settle()
	return e.Finish(), refused
}

func (e *Engine) take(ev rollout.Event) error {
	switch ev := ev.(type) {
	case rollout.Report:
		// What a driver reads late has happened when it was reported.
		if at := ev.Level.At; at.After(e.fact) {
			e.fact = at
		}
		e.Report(ev.Level)
	case rollout.Seen:
		e.Seen(ev.Host, ev.Away)
	case rollout.Gone:
		e.Remove(ev.Host)
	case rollout.Promote:
		return e.promote(ev)
	case rollout.PolicySet:
		e.setPolicy(ev)
	case rollout.Window:
		c := e.Channel(ev.Channel)
		c.Closed = !ev.Open
		e.TouchAll(c)
	case rollout.Limits:
		ev.Holds = maps.Clone(ev.Holds) // those whose time is over go
		e.SetLimits(ev)
	case rollout.Verb:
		return e.verb(ev)
	case rollout.Checked:
		e.checked(ev)
	case rollout.Clear:
		return e.clear(ev)
	}
	return nil
}

// settle lets each channel in which something is new come to rest.
func (e *Engine) settle() {
	for again := true; again; {
		again = false
		e.Expire() // what was decided may have an end that has passed
		e.Freed()
		for _, c := range e.Order {
			if !c.Due && (c.Next.IsZero() || e.Now.Before(c.Next)) {
				continue
			}
			c.Due, c.Next, again = false, time.Time{}, true
			for e.reverts(c); e.turn(c); e.reverts(c) {
			}
			e.grants(c)
			c.Next = e.nextOf(c)
		}
	}
}

// setPolicy changes the limits of a roll-out at once, and its waves with the next one.
// Without rules of roll-outs there is none any more.
func (e *Engine) setPolicy(ev rollout.PolicySet) {
	c := e.Channel(ev.Channel)
	ends := c.Run != nil && !c.Run.Row.State.Over() && (ev.Policy == nil || ev.Policy.Rollout == nil)
	if !ends && c.Reboots == ev.Reboots && reflect.DeepEqual(c.Policy, ev.Policy) && e.kept(c) {
		return
	}
	switch c.Policy, c.Reboots = ev.Policy, ev.Reboots; {
	case ends:
		c.Row.Queued, c.Run.Row.Revert, c.Changed = nil, "", true
		e.state(c, rollout.Superseded, "the policy has no roll-outs any more: everyone may begin")
	case !e.kept(c):
		next := limits(c)
		c.Run.Row.Policy = &next
		e.ChangedRun(c.Run)
	}
	e.TouchAll(c)
}

// limits are the rules of a roll-out with the limits of the policy that is set now.
func limits(c *roster.Channel) policy.Rollout {
	next, was := *c.Policy.Rollout, c.Run.Row.Policy
	next.Waves, next.After, next.Bake = was.Waves, was.After, was.Bake
	return next
}

// kept tells whether a roll-out has the limits of the policy that is set now.
func (e *Engine) kept(c *roster.Channel) bool {
	if c.Run == nil || c.Policy == nil || c.Policy.Rollout == nil {
		return true
	}
	next := limits(c)
	return reflect.DeepEqual(next, *c.Run.Row.Policy)
}

// limitsOver takes away the freeze and the holds whose time is over.
func (e *Engine) limitsOver() {
	over := false
	if f := e.Limits.Freeze; f != nil && !f.Until.IsZero() && !e.Now.Before(f.Until) {
		e.Limits.Freeze, over = nil, true
	}
	for name, h := range e.Limits.Holds {
		if !h.Until.IsZero() && !e.Now.Before(h.Until) {
			delete(e.Limits.Holds, name)
			over = true
		}
	}
	if over {
		for _, c := range e.Order {
			e.TouchAll(c)
		}
	}
}
