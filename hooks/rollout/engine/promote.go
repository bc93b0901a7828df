package engine

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/policy"
	"narwharf/hooks/rollout/roster"
)

// Gate says whether a promote would be taken now, and changes nothing.
func (e *Engine) Gate(now time.Time, ev rollout.Promote) error {
	e.Now = now
	c := e.Channel(ev.Channel)
	release := e.Releases(ev.Channel, ev.Seq)
	switch {
	case release == nil:
		return &rollout.Refusal{Kind: "not_found", Text: fmt.Sprintf("release %d of %s is not here", ev.Seq, ev.Channel)}
	case ev.Everyone:
		return nil
	case ev.Seq <= c.Row.Seq, c.Row.Queued != nil && ev.Seq <= c.Row.Queued.Seq:
		return &rollout.Refusal{Kind: "conflict", Text: fmt.Sprintf("release %d of %s is not newer than the last", ev.Seq, ev.Channel)}
	case c.Policy == nil:
		return nil
	}
	if err := e.gates(c, ev, release); err != nil {
		return err
	}
	if c.Policy.Rollout != nil && e.onTheWay(c) && supersedes(c, ev) == policy.Reject {
		return &rollout.Refusal{Kind: "in_progress", Text: fmt.Sprintf("release %d of %s is on its way, and the policy takes no other meanwhile (on_supersede): abort it, or wait until it is over", c.Run.Row.Seq, c.Row.Name)}
	}
	return nil
}

// onTheWay tells whether a roll-out goes on, or will when somebody says so.
func (e *Engine) onTheWay(c *roster.Channel) bool {
	return c.Run != nil && (c.Run.Row.State == rollout.Running || c.Run.Row.State == rollout.Paused)
}

// supersedes is what a promote does to the roll-out that is on its way.
func supersedes(c *roster.Channel, ev rollout.Promote) string {
	if ev.Now {
		return policy.Replace
	}
	return c.Run.Row.Policy.Superseding()
}

// promote takes a new release of a channel.
func (e *Engine) promote(ev rollout.Promote) error {
	if err := e.Gate(e.Now, ev); err != nil {
		return err
	}
	c := e.Channel(ev.Channel)
	switch {
	case c.Policy == nil || c.Policy.Rollout == nil:
		return nil
	case ev.Everyone:
		return e.everyone(c, ev)
	case c.Run != nil && c.Run.Row.State == rollout.Aborting:
		c.Row.Queued, c.Changed = &ev, true
		return nil
	case e.onTheWay(c) && supersedes(c, ev) == policy.Queue:
		c.Row.Queued, c.Changed = &ev, true
		e.Decide(rollout.Decision{Kind: string(rollout.Queued), Channel: c.Row.Name, Seq: ev.Seq})
		return nil
	}
	e.start(c, ev)
	return nil
}

// everyone is for a release that was promoted while the channel had no rules: whoever
// could begin with it has leave, so its roll-out has completed.
func (e *Engine) everyone(c *roster.Channel, ev rollout.Promote) error {
	switch {
	case c.Run == nil || ev.Seq > c.Row.Seq:
	case ev.Seq == c.Row.Seq && c.Run.Row.State == rollout.Completed:
		return nil
	case ev.Seq < c.Row.Seq || !c.Run.Row.State.Over():
		return &rollout.Refusal{Kind: "conflict", Text: fmt.Sprintf("release %d of %s has a roll-out", c.Row.Seq, c.Row.Name)}
	}
	e.start(c, ev)
	e.complete(c)
	return nil
}

// gates are what a release has to have shown before anybody is told of it.
func (e *Engine) gates(c *roster.Channel, ev rollout.Promote, release *rollout.Release) error {
	if ev.Now {
		return nil
	}
	if !ev.Force {
		for _, target := range slices.Sorted(maps.Keys(release.Entries)) {
			entry := release.Entries[target]
			if q := e.Quarantine[entry.Key()]; q != nil {
				return &rollout.Refusal{Kind: "quarantined", Text: fmt.Sprintf("%s is in quarantine: %d hosts of %s went back from it by themselves; narwharf quarantine clear %s once you know why, or promote with --force", q.Path, q.Hosts, q.Channel, q.Path)}
			}
		}
	}
	if req := c.Policy.Requires; req != nil {
		return e.proven(c, req, release)
	}
	return nil
}

// proven tells whether a release has completed on the channel that it is required to.
func (e *Engine) proven(c *roster.Channel, req *policy.Requires, release *rollout.Release) error {
	other := e.Channels[req.Channel]
	best := "no release with the same systems or the same rev has completed there"
	if other != nil {
		for _, d := range slices.Backward(other.Row.Done) {
			was := e.Releases(req.Channel, d.Seq)
			if !d.Well || was == nil || !same(release, was) {
				continue
			}
			since := e.Now.Sub(d.At)
			if since >= time.Duration(req.Baked) {
				return nil
			}
			best = fmt.Sprintf("its release %d completed %s ago, and %s are asked for", d.Seq, since.Truncate(time.Second), req.Baked)
		}
	}
	return &rollout.Refusal{Kind: "not_proven", Text: fmt.Sprintf("%s takes what was proven on %s: %s", c.Row.Name, req.Channel, best)}
}

// same tells whether a release is of the rev of another, or has no other systems.
func same(r, was *rollout.Release) bool {
	if r.Rev != "" && r.Rev == was.Rev {
		return true
	}
	paths := make(map[string]bool)
	for _, entry := range was.Entries {
		paths[entry.Path] = true
	}
	for _, entry := range r.Entries {
		if !paths[entry.Path] {
			return false
		}
	}
	return len(r.Entries) > 0
}

// start makes the roll-out of a release the channel's.
func (e *Engine) start(c *roster.Channel, ev rollout.Promote) {
	if old := c.Run; old != nil && !old.Row.State.Over() {
		old.Row.State, old.Row.Ended, old.Row.Revert = rollout.Superseded, e.Now, ""
		e.ChangedRun(old)
		e.Decide(rollout.Decision{Kind: string(rollout.Superseded), Channel: c.Row.Name, Seq: old.Row.Seq, Text: fmt.Sprintf("by release %d", ev.Seq)})
	}
	rules := *c.Policy.Rollout
	if ev.Now { // one wave, and what it waits for is the hosts' own safety
		rules.Waves, rules.After, rules.Bake = nil, nil, 0
	}
	row := &rollout.Rollout{
		V: rollout.Version, Channel: c.Row.Name, Seq: ev.Seq, State: rollout.Planned, Policy: &rules,
		Rollback: ev.Rollback, Now: ev.Now, Force: ev.Force, Created: e.Now,
	}
	c.Row.Seq, c.Row.Queued, c.Changed = ev.Seq, nil, true
	e.SetRun(c, row)
	e.ChangedRun(c.Run)
	e.Decide(rollout.Decision{Kind: string(rollout.Planned), Channel: c.Row.Name, Seq: ev.Seq, Text: goesPast(ev)})
	e.TouchAll(c)
}

// goesPast says what a person lets a release go past, and why.
func goesPast(ev rollout.Promote) string {
	switch {
	case ev.Now:
		return fmt.Sprintf("now, past waves, bakes and checks, says %s: %s", ev.By, ev.Reason)
	case ev.Force:
		return fmt.Sprintf("in spite of a quarantine, if there is one, says %s", ev.By)
	}
	return ""
}
