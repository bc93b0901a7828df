package engine

import (
	"fmt"
	"maps"
	"time"

	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/policy"
	"narwharf/hooks/rollout/roster"
)

// tooBad says why a roll-out has to halt for what became of its hosts, "" if it has not.
func (e *Engine) tooBad(c *roster.Channel) string {
	run := c.Run
	if limit := run.Row.Policy.Errors(run.Total); run.Faults > limit {
		return fmt.Sprintf("%d hosts ended badly, and max_errors is %d", run.Faults, limit)
	}
	suspects := run.Suspects
	run.Suspects = nil
	if run.Row.Now || run.Row.Force {
		return ""
	}
	limit := run.Row.Policy.Quarantining(run.Total)
	for _, key := range suspects {
		if n := run.Reverted[key]; limit > 0 && n >= limit && e.Quarantine[key] == nil {
			return fmt.Sprintf("%d hosts went back from one system by themselves", n)
		}
	}
	return ""
}

// fail halts a roll-out, and does what its policy says of failures.
func (e *Engine) fail(c *roster.Channel, why string) {
	run := c.Run
	e.isolate(c)
	switch run.Row.Policy.Failing() {
	case policy.RevertWave:
		run.Row.Revert = rollout.RevertWave
	case policy.RevertAll:
		run.Row.Revert = rollout.RevertAll
	}
	if run.Row.State == rollout.Completed {
		e.undone(c)
	}
	e.state(c, rollout.Halted, why)
}

// undone is that a release which had completed is not what hosts are to have.
func (e *Engine) undone(c *roster.Channel) {
	if n := len(c.Row.Done); n > 0 && c.Row.Done[n-1].Seq == c.Run.Row.Seq {
		c.Row.Done = c.Row.Done[:n-1]
		c.Changed = true
	}
}

// isolate puts the systems that too many hosts went back from into quarantine.
func (e *Engine) isolate(c *roster.Channel) {
	run := c.Run
	limit := run.Row.Policy.Quarantining(run.Total)
	if limit == 0 {
		return
	}
	before := len(e.Quarantine)
	for _, h := range c.Hosts {
		entry := run.Release.Entry(h.Level.Target)
		if entry == nil || run.Reverted[entry.Key()] < limit || e.Quarantine[entry.Key()] != nil {
			continue
		}
		q := &rollout.Quarantine{V: rollout.Version, Path: entry.Path, Closure: entry.Closure, Channel: c.Row.Name, Seq: run.Row.Seq, Hosts: run.Reverted[entry.Key()], At: e.Now}
		e.Quarantine[q.Key()] = q
		e.Out.Quarantines = append(e.Out.Quarantines, q)
		e.Decide(rollout.Decision{Kind: "quarantined", Channel: c.Row.Name, Seq: q.Seq, Alarm: true,
			Text: fmt.Sprintf("%d hosts went back from %s by themselves: it is given to nobody", q.Hosts, q.Path)})
	}
	if len(e.Quarantine) > before {
		e.touchOthers(c)
	}
}

// touchOthers is for what concerns the hosts of all channels, of which c's are looked at
// anyway.
func (e *Engine) touchOthers(c *roster.Channel) {
	for _, other := range e.Order {
		if other != c && other.Run != nil {
			e.TouchAll(other)
		}
	}
}

// cleared ends the quarantine of the systems of a release that completed well.
func (e *Engine) cleared(c *roster.Channel) {
	before := len(e.Quarantine)
	for key, q := range e.Quarantine {
		for _, entry := range c.Run.Release.Entries {
			if entry.Key() == key {
				e.lift(q)
				break
			}
		}
	}
	if len(e.Quarantine) < before {
		e.touchOthers(c)
	}
}

func (e *Engine) lift(q *rollout.Quarantine) {
	if q.Cleared {
		return
	}
	q.Cleared = true
	delete(e.Quarantine, q.Key())
	e.Out.Quarantines = append(e.Out.Quarantines, q)
}

// clear is a person's word that a system may be given again.
func (e *Engine) clear(ev rollout.Clear) error {
	found := false
	for _, q := range e.Quarantine {
		if q.Path == ev.Path {
			e.lift(q)
			found = true
		}
	}
	if !found {
		return &rollout.Refusal{Kind: "not_found", Text: ev.Path + " is not in quarantine"}
	}
	for _, c := range e.Order {
		e.TouchAll(c)
	}
	return nil
}

// checked takes the answer of a check. Of the current bake alone: what was asked
// before it says nothing of the hosts that run the release now.
func (e *Engine) checked(ev rollout.Checked) {
	c := e.Channels[ev.Channel]
	if c == nil || c.Run == nil || c.Run.Row.Seq != ev.Seq || len(c.Run.Row.Waves) != ev.Wave {
		return
	}
	w := &c.Run.Row.Waves[ev.Wave-1]
	if w.Met.IsZero() || ev.Asked.Before(w.Met) || !w.Passed.IsZero() {
		return
	}
	was, ok := w.Checks[ev.Name]
	is := rollout.Check{OK: ev.OK, At: e.Now, Detail: ev.Detail, Stands: ev.Stands}
	if ev.None {
		if is = was; !ok {
			is.None = true
		}
		is.Detail = ev.Detail
	}
	if is == was {
		return
	}
	w.Checks = maps.Clone(w.Checks) // rows that were handed out stay as they are
	if w.Checks == nil {
		w.Checks = make(map[string]rollout.Check)
	}
	w.Checks[ev.Name] = is
	if c.Due = true; !ok || was.OK != is.OK || was.None != is.None {
		e.ChangedRun(c.Run)
	} else {
		e.Keep(c.Run) // who looked at the roll-out before has still seen it as it is
	}
}

// Asks are the checks that a bake wants to be asked now, repeatedly until it is over.
func (e *Engine) Asks(channel string) (names []string, wave int, since time.Time) {
	c := e.Channels[channel]
	if c == nil || c.Run == nil || c.Run.Row.State != rollout.Running || len(c.Run.Row.Waves) == 0 {
		return nil, 0, time.Time{}
	}
	i := len(c.Run.Row.Waves) - 1
	if w := &c.Run.Row.Waves[i]; !w.Met.IsZero() && w.Passed.IsZero() {
		return c.Run.Row.Policy.All()[i].Checks, i + 1, w.Met
	}
	return nil, 0, time.Time{}
}
