package engine

import (
	"fmt"
	"slices"
	"time"

	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/roster"
)

// turn makes the next change of a channel's roll-out that is due, and tells whether
// there was one.
func (e *Engine) turn(c *roster.Channel) bool {
	run := c.Run
	if run == nil {
		return false
	}
	switch run.Row.State {
	case rollout.Planned:
		switch {
		case run.Total == 0:
			e.complete(c)
		case e.Able(c):
			e.state(c, rollout.Running, "")
		default:
			return false
		}
		return true
	case rollout.Running:
		return e.judge(c)
	case rollout.Completed:
		if why := e.tooBad(c); why != "" {
			e.fail(c, why)
			return true
		}
	case rollout.Aborting:
		if e.quiet(c) {
			e.state(c, rollout.Aborted, run.Row.Why)
			return true
		}
	}
	if q := c.Row.Queued; q != nil && run.Row.State.Over() {
		c.Row.Queued, c.Changed = nil, true
		e.start(c, *q)
		return true
	}
	return false
}

// quiet tells whether nobody that can be reached is under way: an abort is over.
func (e *Engine) quiet(c *roster.Channel) bool { return c.Flight <= c.Stuck }

// state changes that of a roll-out. What hosts are told depends on it.
func (e *Engine) state(c *roster.Channel, s rollout.State, why string) {
	row := c.Run.Row
	row.State, row.Why = s, why
	if row.Ended = (time.Time{}); s.Over() {
		row.Ended = e.Now
	}
	e.ChangedRun(c.Run)
	e.clock(c)
	alarm := s == rollout.Halted
	e.Decide(rollout.Decision{Kind: string(s), Channel: c.Row.Name, Seq: row.Seq, Wave: len(row.Waves), Text: why, Alarm: alarm})
	e.TouchAll(c)
}

// judge looks at the current wave of a running roll-out.
func (e *Engine) judge(c *roster.Channel) bool {
	run := c.Run
	e.clock(c)
	if why := e.tooBad(c); why != "" {
		e.fail(c, why)
		return true
	}
	i := len(run.Row.Waves) - 1
	if i < 0 || !run.Row.Waves[i].Passed.IsZero() {
		return e.openNext(c)
	}
	w, n := &run.Row.Waves[i], run.Waves[i]
	count := n[roster.Well] + n[roster.Bad] + n[roster.Open]
	need := run.Row.Policy.Enough(count, n[roster.Bad])
	name := run.Row.Policy.WaveText(i)
	switch {
	case w.Skipped != "", count+n[roster.Aside] == 0:
		return e.pass(c)
	case n[roster.Well] >= need:
		return e.bake(c, w, i)
	case !w.Met.IsZero():
		w.Met, w.Checks = time.Time{}, nil // a late error
		e.ChangedRun(run)
		return true
	case count > 0 && n[roster.Well]+n[roster.Open] < need:
		e.fail(c, fmt.Sprintf("%s cannot have enough hosts that are well any more: %d of %d have to be, %d are, %d ended badly", name, need, count, n[roster.Well], n[roster.Bad]))
		return true
	case e.barred(c, n[roster.Open]):
		e.fail(c, fmt.Sprintf("all %d hosts of %s that have not begun wait (after) for others that ended badly: narwharf rollout retry lets those try again, resume goes on without them", n[roster.Open], name))
		return true
	case spent(w, e.Now) >= run.Row.Policy.WaveTimeout() && !e.Now.Before(e.Heard(c)):
		e.fail(c, fmt.Sprintf("%s has not had enough hosts that are well in %s: %d of %d", name, run.Row.Policy.WaveTimeout(), n[roster.Well], need))
		return true
	}
	return false
}

// barred tells whether all hosts of the current wave that are to come wait (after) for
// others that ended badly: then nothing comes without a person.
func (e *Engine) barred(c *roster.Channel, open int) bool {
	return open > 0 && len(c.Run.Row.Policy.After) > 0 && e.Barred(c) == open
}

// bake is for a wave with enough hosts that are well.
func (e *Engine) bake(c *roster.Channel, w *rollout.Wave, i int) bool {
	run := c.Run
	spec := run.Row.Policy.All()[i]
	if w.Met.IsZero() {
		w.Met = e.fact
		e.ChangedRun(run)
		e.clock(c)
	}
	over := w.Met.Add(run.Row.Policy.Baking(i, run.Row.Rollback))
	for _, name := range spec.Checks {
		if a, ok := w.Checks[name]; ok && !a.None && !a.OK {
			e.fail(c, fmt.Sprintf("the check %s says no: %s", name, a.Detail))
			return true
		}
	}
	if e.Now.Before(over) {
		return false
	}
	// What answers while it is waited for after the bake has answered, too.
	if name, why := w.Unanswered(spec.Checks, over); name != "" {
		if !e.Now.Before(over.Add(answerWithin)) {
			e.fail(c, unanswered(name, run.Row.Policy.WaveText(i), why, w.Checks[name].At))
			return true
		}
		return false
	}
	if spec.Approve && w.Approved == "" {
		return false
	}
	return e.pass(c)
}

func unanswered(check, wave, why string, last time.Time) string {
	text := fmt.Sprintf("the check %s has not answered through the bake of %s", check, wave)
	if !last.IsZero() {
		text = fmt.Sprintf("the check %s has not answered in the bake of %s since %s", check, wave, last.UTC().Format(time.TimeOnly))
	}
	if why != "" {
		text += ": " + why
	}
	return text
}

// answerWithin is how long after the bake a check may still give its first answer: a
// bake may be shorter than any check takes.
const answerWithin = time.Minute

// pass ends a wave, and opens the next.
func (e *Engine) pass(c *roster.Channel) bool {
	run := c.Run
	i := len(run.Row.Waves) - 1
	w := &run.Row.Waves[i]
	w.Passed = e.Now
	e.Decide(rollout.Decision{Kind: "passed", Channel: c.Row.Name, Seq: run.Row.Seq, Wave: i + 1, Text: w.Skipped})
	e.ChangedRun(run)
	e.clock(c)
	e.openNext(c)
	return true
}

// openNext opens the wave after the last, or completes the roll-out.
func (e *Engine) openNext(c *roster.Channel) bool {
	switch {
	case len(c.Run.Row.Waves) == len(c.Run.Row.Policy.All()):
		e.complete(c)
	case !e.Able(c):
		return false
	default:
		e.openWave(c)
	}
	return true
}

// openWave fixes who is in the next wave: this is once over the hosts of the channel.
func (e *Engine) openWave(c *roster.Channel) {
	run := c.Run
	i := len(run.Row.Waves)
	spec := run.Row.Policy.All()[i]
	var pick []*roster.Host
	for _, h := range c.Hosts {
		if f := &h.Counted; f.Wave == 0 && f.Total && !f.Fresh && spec.Select.Matches(h.Level.Labels) && (f.Must || h.Row.Seq == run.Row.Seq) {
			pick = append(pick, h)
		}
	}
	size := len(pick)
	if spec.Max != nil {
		size = min(size, spec.Max.Up(len(pick)))
	}
	if size < len(pick) {
		slices.SortFunc(pick, func(a, b *roster.Host) int {
			return roster.Picked(a.Absent(), b.Absent(), a.Turn(), b.Turn())
		})
	}
	run.Waves = append(run.Waves, roster.Tally{})
	for j := range run.Pending {
		run.Pending[j], run.Failed[j] = append(run.Pending[j], 0), append(run.Failed[j], 0)
	}
	run.Row.Waves = append(run.Row.Waves, rollout.Wave{Opened: e.Now, Size: size})
	for _, h := range pick[:size] {
		h.Row.Wave, h.Row.WaveOf, h.Row.Turn = int32(i+1), run.Row.Seq, 0
		e.Changed(h)
		e.Touch(h)
	}
	e.ChangedRun(run)
	e.clock(c)
	e.Decide(rollout.Decision{Kind: "wave", Channel: c.Row.Name, Seq: run.Row.Seq, Wave: i + 1, Text: fmt.Sprintf("%s: %d hosts", run.Row.Policy.WaveText(i), size)})
}

// complete is that every wave has passed, or that nobody has to change.
func (e *Engine) complete(c *roster.Channel) {
	run := c.Run
	done := rollout.Done{Seq: run.Row.Seq, At: e.Now, Well: run.Faults <= run.Row.Policy.Errors(run.Total) && e.anyWell(c)}
	c.Row.Done = append(c.Row.Done, done)
	if n := len(c.Row.Done); n > rollout.MaxDone {
		c.Row.Done = slices.Clone(c.Row.Done[n-rollout.MaxDone:])
	}
	c.Changed = true
	if done.Well {
		e.cleared(c)
	}
	e.state(c, rollout.Completed, "")
}

// anyWell tells whether some host runs what the release has for it.
func (e *Engine) anyWell(c *roster.Channel) bool {
	for _, n := range c.Run.Waves {
		if n[roster.Well] > 0 {
			return true
		}
	}
	return slices.ContainsFunc(c.Hosts, func(h *roster.Host) bool {
		entry := c.Run.Release.Entry(h.Level.Target)
		return entry != nil && !entry.Changes(&h.Level)
	})
}

// clock lets the time of the current wave run, or stops it.
func (e *Engine) clock(c *roster.Channel) {
	run := c.Run
	if len(run.Row.Waves) == 0 {
		return
	}
	w := &run.Row.Waves[len(run.Row.Waves)-1]
	runs := run.Row.State == rollout.Running && e.Able(c) && w.Met.IsZero() && w.Passed.IsZero()
	switch {
	case runs && w.Since.IsZero():
		w.Since = e.Now
	case !runs && !w.Since.IsZero():
		w.Spent, w.Since = spent(w, e.Now), time.Time{}
	case runs && e.Now.Sub(w.Since) >= alive:
		w.Spent, w.Since = spent(w, e.Now), e.Now
		e.Keep(run) // who looked at the roll-out before has still seen it as it is
		return
	default:
		return
	}
	e.ChangedRun(run)
}

// alive is how often the time of a wave is stored. What was not when the server ended, and the
// time that it was off, is no wave's.
const alive = 10 * time.Minute

// wasOff takes the time before the driver's start out of that of the current wave.
func (e *Engine) wasOff(c *roster.Channel) {
	if n := len(c.Run.Row.Waves); n > 0 {
		if w := &c.Run.Row.Waves[n-1]; !w.Since.IsZero() && w.Since.Before(e.Began) {
			w.Since = e.Began
			e.Keep(c.Run)
		}
	}
}

func spent(w *rollout.Wave, now time.Time) time.Duration {
	if w.Since.IsZero() {
		return w.Spent
	}
	return w.Spent + now.Sub(w.Since)
}

// nextOf is when time alone changes something of a channel's roll-out.
func (e *Engine) nextOf(c *roster.Channel) (at time.Time) {
	run := c.Run
	if run == nil || run.Row.State != rollout.Running || len(run.Row.Waves) == 0 {
		return at
	}
	i := len(run.Row.Waves) - 1
	w := &run.Row.Waves[i]
	later := func(t time.Time) {
		if t.After(e.Now) {
			at = roster.Sooner(at, t)
		}
	}
	if !w.Since.IsZero() {
		later(w.Since.Add(min(run.Row.Policy.WaveTimeout()-w.Spent, alive)))
		later(e.Heard(c))
	}
	if !w.Met.IsZero() {
		over := w.Met.Add(run.Row.Policy.Baking(i, run.Row.Rollback))
		later(over)
		later(over.Add(answerWithin))
	}
	return at
}
