// Package attempt is one host's way through a release: what its reports, the time, a
// grant and a directive make of its row. It knows of no other host.
//
// Nothing is inferred from a report that does not come: a phase ends by a word of the
// host, by the end of a lease that it has not used, or by a person. A host may be told
// of by its last report alone, so what a report skips has to follow from what it says.
package attempt

import (
	"slices"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
)

// Case is a host with what its row depends on. Row alone is changed.
type Case struct {
	Row      *rollout.Host
	Level    *rollout.Level
	Now      time.Time
	Run      *rollout.Rollout // of its channel, nil if there is none
	Release  *rollout.Release // of Run
	Releases rollout.Releases
	Newest   int64 // the newest release that completed, 0 for none
	Reboots  bool  // the server permits some
	// Heard is when all hosts that can be reached have been heard of since the driver's
	// start. What a host has not said before then, it may have had nobody to say it to.
	Heard time.Time

	Changed   bool
	Decisions []rollout.Decision
}

// Entry is what a release has for the host.
func (c *Case) Entry(seq int64) *rollout.Entry {
	if c.Run != nil && c.Run.Seq == seq {
		return c.Release.Entry(c.Level.Target)
	}
	if r := c.Releases(c.Row.Channel, seq); r != nil {
		return r.Entry(c.Level.Target)
	}
	return nil
}

// Hear makes of the host's report what it means for its row.
func (c *Case) Hear() {
	r, l := c.Row, c.Level
	if r.Phase == rollout.Untouched || r.Seq < l.Seq && !r.Phase.InFlight() {
		c.adopt()
		return
	}
	word := rollout.WordOf(l, r.Seq, c.Entry(r.Seq), r.Over)
	switch r.Phase {
	case rollout.Granted, rollout.Withdrawn:
		c.hearGranted(word)
		c.letGo()
	case rollout.Begun:
		c.hearBegun(word)
	case rollout.Armed:
		c.hearArmed(word)
	case rollout.Reverting:
		c.hearReverting(word)
	default:
		c.hearEnded(word)
	}
}

// adopt is for a host about which nothing was decided, or about an older release.
func (c *Case) adopt() {
	r, l := c.Row, c.Level
	if c.Run == nil || l.Seq == 0 || l.Confirmed == "" && l.Seq == c.Newest {
		return // a new machine has leave by a rule, and is part of no roll-out
	}
	entry := c.Entry(l.Seq)
	word := rollout.WordOf(l, l.Seq, entry, r.Over)
	switch {
	case word == rollout.Busy:
		// It was granted by a driver whose last writes are lost, or before there were
		// roll-outs: it holds a place, however many there are.
		c.about(l.Seq)
		c.begun()
	case l.Seq != c.Run.Seq:
	case r.Retry && isBad(word):
		r.Over, c.Changed = l.Attempt, true // it waits for its grant, which lets it try again
	case word == rollout.IsWell || word == rollout.IsArmed:
		if r.WaveOf == l.Seq {
			c.about(l.Seq)
			c.well(word)
		}
	case word == rollout.IsReverted && c.denies(entry):
		r.Retry, r.Over, c.Changed = true, l.Attempt, true
	case isBad(word):
		c.about(l.Seq)
		c.bad(word)
	}
}

func isBad(w rollout.Word) bool {
	return w == rollout.IsReverted || w == rollout.IsFailed || w == rollout.IsRejected
}

// about makes the row one about a release.
func (c *Case) about(seq int64) {
	r := c.Row
	r.Seq, r.At, r.Until, r.Fault, r.Forgiven, r.Before = seq, c.Now, time.Time{}, "", false, ""
	if entry := c.Entry(seq); entry != nil && c.Level.Confirmed != entry.Path {
		r.Before = c.Level.Confirmed
	}
	c.Changed = true
}

func (c *Case) hearGranted(word rollout.Word) {
	switch word {
	case rollout.Busy:
		c.begun()
	case rollout.HoldsBack:
		c.Withdraw()
	case rollout.Elsewhere:
		c.backInLine()
	case rollout.Nothing:
		if c.Level.Seq > c.Row.Seq { // it has gone on to a newer release, of which this grant is none
			c.end(rollout.Untouched, "")
			c.adopt()
		}
	default:
		c.hearEnd(word)
	}
}

// denies tells whether the host refuses an entry because a directive made it leave that system
// before, under whatever seq: then it wants to be told to try again.
func (c *Case) denies(entry *rollout.Entry) bool {
	l := c.Level
	return entry != nil && l.DeniesBytes && !l.Refuses && slices.Contains(c.Row.Denied, entry.Path)
}

// deny notes a system that a directive makes the host leave.
func (c *Case) deny(entry *rollout.Entry) {
	r := c.Row
	if !slices.Contains(r.Denied, entry.Path) {
		r.Denied = append(slices.Clone(r.Denied), entry.Path) // rows that were handed out stay as they are
		r.Denied = r.Denied[max(0, len(r.Denied)-rollout.MaxDenied):]
	}
}

// begun is that the host cannot be called back. Its attempt is not over, then.
func (c *Case) begun() {
	r := c.Row
	r.Phase, c.Changed = rollout.Begun, true
	if r.Over == c.Level.Attempt {
		r.Over = ""
	}
}

func (c *Case) hearBegun(word rollout.Word) {
	r, l := c.Row, c.Level
	switch {
	case word == rollout.HoldsBack, word == rollout.Ready:
		c.Withdraw() // it ended what it had begun without a change
	case word == rollout.Elsewhere:
		c.backInLine()
	case word == rollout.Nothing && l.Seq > r.Seq:
		// The word in between was not heard; what runs tells how it ended.
		if old := c.Entry(r.Seq); old != nil && l.Current == old.Path {
			c.end(rollout.Well, r.Fault)
		} else {
			c.end(rollout.Untouched, "")
		}
		c.adopt()
	case word == rollout.Nothing && (l.Seq < r.Seq || l.Attempt != r.Over && beforeAttempt(l.State)):
		c.end(rollout.Bad, rollout.Lost)
	default:
		c.hearEnd(word)
	}
}

// beforeAttempt tells whether a host is in a state in which it has not yet begun.
func beforeAttempt(s api.State) bool {
	return s == api.Idle || s == api.Verifying || s == api.Staging || s == api.StageFailed
}

// hearEnd is for words by which an attempt ends.
func (c *Case) hearEnd(word rollout.Word) {
	switch {
	case word == rollout.IsWell || word == rollout.IsArmed:
		c.well(word)
	case isBad(word):
		c.bad(word)
	}
}

func (c *Case) well(word rollout.Word) {
	if word == rollout.IsArmed && c.Reboots {
		c.Row.Phase, c.Row.Until, c.Changed = rollout.Armed, time.Time{}, true
		return
	}
	c.end(rollout.Well, c.Row.Fault)
}

// bad is a bad end, but where somebody asked for it: a wish that was carried out is no error.
func (c *Case) bad(word rollout.Word) {
	if entry := c.Entry(c.Row.Seq); word == rollout.IsReverted && c.Level.Asked && entry != nil {
		c.deny(entry)
		c.end(rollout.Back, c.Row.Fault)
		return
	}
	fault := map[rollout.Word]rollout.Fault{rollout.IsReverted: rollout.Reverted, rollout.IsFailed: rollout.Failed, rollout.IsRejected: rollout.Rejected}[word]
	c.end(rollout.Bad, fault)
}

// hearArmed is for a host that is rebooting, or waits for that. It is not in flight:
// reboot slots bound how many of these are down.
func (c *Case) hearArmed(word rollout.Word) {
	switch word {
	case rollout.IsArmed, rollout.Busy, rollout.Nothing:
	case rollout.Elsewhere, rollout.Ready, rollout.HoldsBack: // it has lost its state, and begins anew
		c.end(rollout.Untouched, "")
	default:
		c.hearEnd(word)
	}
}

func (c *Case) hearReverting(word rollout.Word) {
	r, l := c.Row, c.Level
	switch {
	case word == rollout.IsReverted:
		c.end(rollout.Back, r.Fault)
	case word == rollout.IsFailed:
		c.end(rollout.Left, rollout.Failed)
	case word == rollout.IsRejected, word == rollout.Elsewhere:
		c.end(rollout.Left, r.Fault)
	case word == rollout.Nothing && l.Seq != r.Seq:
		phase := rollout.Back
		if entry := c.Entry(r.Seq); entry != nil && l.Current == entry.Path {
			phase = rollout.Left
		}
		c.end(phase, r.Fault)
	case r.Fault == rollout.TimedOut && (c.Run == nil || c.Run.Seq != r.Seq):
		c.hearStays(word)
	}
}

// hearStays is for a host that was asked to leave an older release for long enough, and
// is where it was. It is to have a newer one now.
func (c *Case) hearStays(word rollout.Word) {
	switch word {
	case rollout.IsWell, rollout.IsArmed:
		c.well(word)
	case rollout.Ready, rollout.HoldsBack: // it never changed to it
		c.end(rollout.Back, c.Row.Fault)
	}
}

// hearEnded is for hosts of which the end was known.
func (c *Case) hearEnded(word rollout.Word) {
	was := c.Row.Phase == rollout.Well
	switch {
	case c.Row.Phase != rollout.Bad && !was && c.Leaves(): // it stays what the abort made of it
	case !was && word == rollout.IsWell:
		c.end(rollout.Well, "") // somebody has put it right
	case !was && word == rollout.IsArmed:
		c.well(word)
	case !was && word == rollout.Busy: // without our leave; it holds a place all the same
		c.Row.At = c.Now
		c.begun()
	case was && (word == rollout.Busy || word == rollout.Ready):
		c.end(rollout.Untouched, "") // it drifted, and goes back to its entry
		c.adopt()
	case was && (word == rollout.IsReverted || word == rollout.IsFailed):
		c.bad(word) // late: it was armed
	}
}

// end is that nothing is under way on the host any more.
func (c *Case) end(phase rollout.Phase, fault rollout.Fault) {
	r := c.Row
	r.Until = c.rest(phase)
	r.Phase, r.Fault, r.Over, c.Changed = phase, fault, "", true
	if phase == rollout.Bad || phase == rollout.Back || phase == rollout.Left {
		r.Over = c.over()
	}
	if phase != rollout.Untouched {
		r.Retry = false
		c.decide(phase.String(), string(fault))
	}
}

// rest is until when a host that is well is told its grant as before: it has no use for it, and
// is not to be woken to hear that. Zero: it is told at once.
func (c *Case) rest(phase rollout.Phase) (until time.Time) {
	r := c.Row
	if was := r.Phase; phase != rollout.Well || was != rollout.Granted && was != rollout.Begun || r.Until.IsZero() || r.Retry {
		return until
	}
	if until = r.At.Add(rollout.Lease); r.Until.Before(until) {
		until = r.Until
	}
	if !until.After(c.Now) {
		return time.Time{}
	}
	return until
}

// over is the attempt of which the host has said that it ended badly; "" if it may
// still go on, as one that was timed out may.
func (c *Case) over() string {
	if l := c.Level; l.Seq == c.Row.Seq && (l.State == api.Reverted || l.State == api.Failed || l.State == api.Rejected) {
		return l.Attempt
	}
	return ""
}

func (c *Case) decide(kind, text string) {
	r := c.Row
	c.Decisions = append(c.Decisions, rollout.Decision{Kind: kind, Channel: r.Channel, Seq: r.Seq, Host: r.Name, Wave: int(r.Wave), Text: text})
}
