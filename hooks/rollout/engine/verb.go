package engine

import (
	"fmt"
	"time"

	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/attempt"
	"narwharf/hooks/rollout/roster"
)

func conflict(format string, args ...any) error {
	return &rollout.Refusal{Kind: "conflict", Text: fmt.Sprintf(format, args...)}
}

// verb does what an operator says of a roll-out.
func (e *Engine) verb(ev rollout.Verb) error {
	c := e.Channels[ev.Channel]
	if c == nil || c.Run == nil {
		return &rollout.Refusal{Kind: "not_found", Text: fmt.Sprintf("%s has no roll-out", ev.Channel)}
	}
	row := c.Run.Row
	switch {
	case ev.Seq != row.Seq:
		return conflict("the roll-out of %s is release %d now, not %d: look at it and say so again if you still mean it", ev.Channel, row.Seq, ev.Seq)
	case ev.Rev != 0 && ev.Rev != row.Rev:
		return conflict("the roll-out of release %d of %s has changed meanwhile: look at it and say so again if you still mean it", row.Seq, ev.Channel)
	}
	switch ev.Verb {
	case rollout.Pause:
		return e.pause(c, ev)
	case rollout.Resume:
		return e.resume(c, ev)
	case rollout.Abort:
		return e.abort(c, ev)
	case rollout.Retry:
		return e.retry(c, ev)
	case rollout.Advance, rollout.Skip:
		return e.goOn(c, ev)
	}
	return conflict("%q is none of pause, resume, abort, retry, advance, skip", ev.Verb)
}

func cannot(ev rollout.Verb, row *rollout.Rollout) error {
	return conflict("release %d of %s is %s: there is nothing to %s", row.Seq, ev.Channel, row.State, ev.Verb)
}

func said(ev rollout.Verb) string {
	if ev.Reason == "" {
		return fmt.Sprintf("%s: %s", ev.By, ev.Verb)
	}
	return fmt.Sprintf("%s: %s", ev.By, ev.Reason)
}

func (e *Engine) pause(c *roster.Channel, ev rollout.Verb) error {
	if s := c.Run.Row.State; s != rollout.Running && s != rollout.Planned {
		return cannot(ev, c.Run.Row)
	}
	e.state(c, rollout.Paused, said(ev))
	return nil
}

// resume goes on; of one that halted, in spite of the errors that there were.
func (e *Engine) resume(c *roster.Channel, ev rollout.Verb) error {
	row := c.Run.Row
	switch {
	case row.State == rollout.Paused:
	case row.State == rollout.Halted && row.Revert != "":
		return conflict("hosts were asked to leave release %d of %s when it halted, and take it again only by retry", row.Seq, ev.Channel)
	case row.State == rollout.Halted:
		for _, h := range c.Hosts {
			if r := &h.Row; r.Seq == row.Seq && r.Fault != "" && !r.Forgiven {
				r.Forgiven = true
				e.Changed(h)
			}
		}
		e.anew(row)
	default:
		return cannot(ev, row)
	}
	e.again(c, said(ev))
	return nil
}

// anew gives the current wave its time and its checks once more.
func (e *Engine) anew(row *rollout.Rollout) {
	if n := len(row.Waves); n > 0 {
		w := &row.Waves[n-1]
		w.Spent, w.Since, w.Met, w.Checks = 0, time.Time{}, time.Time{}, nil
	}
}

// again is the state from which a roll-out goes on.
func (e *Engine) again(c *roster.Channel, why string) {
	row := c.Run.Row
	if n := len(row.Waves); n > 0 && n == len(row.Policy.All()) && !row.Waves[n-1].Passed.IsZero() {
		e.complete(c)
		return
	}
	e.state(c, rollout.Running, why)
}

// abort takes a release back from the hosts that it has touched.
func (e *Engine) abort(c *roster.Channel, ev rollout.Verb) error {
	row := c.Run.Row
	switch row.State {
	case rollout.Completed:
		return conflict("release %d of %s has completed: going back is a release of its own, narwharf rollback %s", row.Seq, ev.Channel, ev.Channel)
	case rollout.Aborting, rollout.Aborted, rollout.Superseded:
		return cannot(ev, row)
	}
	row.Revert = rollout.RevertAll
	e.state(c, rollout.Aborting, said(ev))
	return nil
}

// retry lets hosts that ended badly, or were made to leave, take the release again.
func (e *Engine) retry(c *roster.Channel, ev rollout.Verb) error {
	row := c.Run.Row
	switch {
	case row.State != rollout.Halted && row.State != rollout.Running && row.State != rollout.Paused && row.State != rollout.Completed:
		return cannot(ev, row)
	case row.Revert != "" && c.Asked > 0:
		return conflict("%d hosts are still on their way back from release %d of %s: retry when they are", c.Asked, row.Seq, ev.Channel)
	}
	n := 0
	row.Revert = ""
	for _, h := range c.Hosts {
		if h.Row.Seq == row.Seq && (ev.Host == "" || ev.Host == h.Row.Name) {
			e.Apply(h, func(c *attempt.Case) {
				if c.Again() {
					n++
				}
			})
		}
	}
	if ev.Host != "" && n == 0 {
		return conflict("%s has not ended badly with release %d of %s", ev.Host, row.Seq, ev.Channel)
	}
	e.ChangedRun(c.Run)
	if row.State == rollout.Halted {
		e.anew(row)
		e.again(c, said(ev))
		return nil
	}
	e.TouchAll(c)
	return nil
}

// goOn is advance, the yes that a wave waits for, and skip, which ends a wave as it is.
func (e *Engine) goOn(c *roster.Channel, ev rollout.Verb) error {
	row := c.Run.Row
	if row.State != rollout.Running || len(row.Waves) == 0 {
		return cannot(ev, row)
	}
	i := len(row.Waves) - 1
	w, name := &row.Waves[i], row.Policy.WaveText(i)
	switch {
	case ev.Verb == rollout.Skip:
		w.Skipped = said(ev)
	case !row.Policy.All()[i].Approve:
		return conflict("%s of release %d waits for nobody's yes: skip ends it as it is", name, row.Seq)
	case w.Met.IsZero():
		return conflict("%s of release %d has not enough hosts that are well yet: advance once they are, or skip", name, row.Seq)
	default:
		w.Approved = said(ev)
	}
	c.Due = true
	e.ChangedRun(c.Run)
	return nil
}
