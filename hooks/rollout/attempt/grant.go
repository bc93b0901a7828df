package attempt

import (
	"time"

	"narwharf/hooks/rollout"
)

// Grant lets the host begin with the channel's release.
func (c *Case) Grant() {
	r := c.Row
	// Who sees the release by its grant alone says that he denies it only after that.
	retry := r.Retry || c.Level.Seq != c.Run.Seq && c.denies(c.Entry(c.Run.Seq))
	c.about(c.Run.Seq)
	r.Phase, r.Retry = rollout.Granted, retry
	r.Until = c.Now.Add(rollout.Lease)
	if !c.Run.Policy.Prefetches() {
		r.Until = c.Now.Add(max(c.Run.Policy.Attempt(), rollout.Lease)) // it stages first
	}
	r.Grants++
	c.decide("granted", "")
}

// Withdraw takes a grant back. It counts until the host can surely not use it any more.
func (c *Case) Withdraw() {
	r := c.Row
	if r.Phase == rollout.Withdrawn {
		return
	}
	if limit := c.Now.Add(rollout.Lease); r.Until.IsZero() || r.Until.After(limit) {
		r.Until = limit
	}
	r.Phase, c.Changed = rollout.Withdrawn, true
	c.letGo()
}

// letGo ends the lease of a grant that was taken back and of which the host says that it has it
// no more: what is left is the grace, in which an answer that is on its way, or that of another server, may reach it.
func (c *Case) letGo() {
	r := c.Row
	if r.Phase == rollout.Withdrawn && r.Until.After(c.Now) && c.hasLetGo() {
		r.Until, c.Changed = c.Now, true
	}
}

// hasLetGo tells whether the host says that it has the row's grant no more.
func (c *Case) hasLetGo() bool { return c.Level.LetGo != "" && c.Level.LetGo == c.Row.GrantID() }

// backInLine is that the host has given its place up.
func (c *Case) backInLine() {
	r := c.Row
	r.Phase, r.Until, c.Changed = rollout.Untouched, time.Time{}, true
	r.Turn++
	if r.Fault != "" {
		r.Phase = rollout.Bad // its attempt is not over: it has not begun
	}
}

// Adjust brings the row in line with the state of the channel's roll-out. open is
// whether a grant of it may stand.
func (c *Case) Adjust(open bool) {
	r, l := c.Row, c.Level
	if r.Phase == rollout.Granted && (!open || c.Run == nil || r.Seq != c.Run.Seq || l.Held || l.Paused || c.Entry(r.Seq) == nil) {
		c.Withdraw()
	}
	if !c.Leaves() {
		return
	}
	switch r.Phase {
	case rollout.Begun:
		if !l.Refuses && r.Before != "" {
			c.Direct() // it holds a place already
		}
	case rollout.Well, rollout.Armed:
		if l.Refuses || r.Before == "" {
			c.end(rollout.Left, r.Fault)
		}
	case rollout.Bad:
		if r.Fault == rollout.Failed || r.Fault == rollout.Lost {
			c.end(rollout.Left, r.Fault)
		}
	}
}

// Leaves tells whether the host is to leave the release of its row.
func (c *Case) Leaves() bool {
	r := c.Row
	if c.Run == nil || r.Seq != c.Run.Seq {
		return false
	}
	switch c.Run.Revert {
	case rollout.RevertAll:
		return true
	case rollout.RevertWave:
		return r.WaveOf == r.Seq && int(r.Wave) == len(c.Run.Waves)
	}
	return false
}

// Direct asks the host to leave its release.
func (c *Case) Direct() {
	r := c.Row
	r.Phase, r.At, r.Until, c.Changed = rollout.Reverting, c.Now, time.Time{}, true
	if entry := c.Entry(r.Seq); entry != nil {
		c.deny(entry)
	}
	if r.Fault == rollout.TimedOut {
		r.Fault = "" // its time runs anew
	}
	r.Grants++
	c.decide("revert", "")
}

// Again lets the host take the release once more, if it ended badly or left it.
func (c *Case) Again() bool {
	r := c.Row
	switch {
	case c.Level.Refuses: // it would not: a person on the host has to say it
		return false
	case r.Phase == rollout.Bad, r.Phase == rollout.Back, r.Phase == rollout.Left:
		r.Phase, r.Retry, r.Over = rollout.Untouched, true, c.over()
		r.Turn++
	case r.Phase == rollout.Begun && r.Fault != "":
		r.At = c.Now
	default:
		return false
	}
	r.Fault, r.Forgiven, c.Changed = "", false, true
	return true
}

// Overdue is what time alone changes.
func (c *Case) Overdue() {
	r := c.Row
	at := c.Next()
	if at.IsZero() || c.Now.Before(at) {
		return
	}
	switch r.Phase {
	case rollout.Granted:
		if c.staging() {
			c.timedOut()
		} else {
			r.Until = r.At.Add(rollout.Lease)
		}
		c.Withdraw()
		c.Overdue() // that may be long ago
	case rollout.Withdrawn:
		c.backInLine()
	case rollout.Begun, rollout.Reverting:
		c.timedOut()
	}
}

func (c *Case) timedOut() {
	c.Row.Fault, c.Changed = rollout.TimedOut, true
	c.decide("fault", string(rollout.TimedOut))
}

// staging tells whether a host that is to stage by its grant is known to do so.
func (c *Case) staging() bool {
	r := c.Row
	return c.Run != nil && c.Run.Seq == r.Seq && !c.Run.Policy.Prefetches() && c.Level.HighestSeq >= r.Seq
}

func (c *Case) patience() time.Duration {
	if c.Run == nil {
		return 30 * time.Minute
	}
	return c.Run.Policy.Attempt()
}

// Next is when time alone changes something; zero: never.
func (c *Case) Next() time.Time {
	r := c.Row
	at := r.At.Add(c.patience())
	switch r.Phase {
	case rollout.Granted:
		if !c.staging() {
			at = r.At.Add(rollout.Lease)
		}
	case rollout.Withdrawn:
		at = r.Until.Add(rollout.Grace)
		if c.hasLetGo() {
			return at // it was heard of
		}
	case rollout.Begun, rollout.Reverting:
		if r.Fault != "" {
			return time.Time{}
		}
	default:
		return time.Time{}
	}
	if at.Before(c.Heard) {
		return c.Heard
	}
	return at
}
