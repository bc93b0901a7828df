package nixos

import (
	"fmt"

	"narwharf/hooks/api"
)

// What a server may ask for without a new release. Neither makes a host run
// what no promoter signed: "retry" is about the very entry, and "revert" leads
// to what the host itself has found well before.
const (
	directiveRetry  = "retry"
	directiveRevert = "revert"
	directivePaused = "paused" // a revert that waits for a person on the host
	directiveOld    = "old"    // one that is not above the last that was obeyed
)

// newDirective is the type of a directive about the release of channel that was
// accepted last, "" if there is none that was not obeyed before. It is not new
// any more after that, but for one that a paused host leaves for later.
func (j *Journal) newDirective(d *api.Desired, channel string, f Facts) string {
	r, seen := d.Directive, j.Seen[channel]
	if r == nil || r.Seq != seen.Seq || r.ID == "" || (r.Type != directiveRetry && r.Type != directiveRevert) {
		return ""
	}
	switch {
	case r.Serial < 0 || r.Serial > api.MaxSerial:
		return directiveOld
	case r.ID == j.Directive:
		// It may have been an agent that knows no serial which obeyed it.
	case r.Serial != 0 && r.Serial <= seen.Directive:
		return directiveOld
	case r.Type == directiveRevert && f.Pause != nil:
		return directivePaused
	}
	obeyed := r.ID == j.Directive
	j.Directive = r.ID
	if r.Serial > seen.Directive {
		seen.Directive = r.Serial
		j.Seen[channel] = seen
	}
	if obeyed {
		return ""
	}
	return r.Type
}

// oldText says why a directive is not obeyed, and what to do where it is meant.
func oldText(r *api.Directive, last int64) string {
	text := fmt.Sprintf("the server asks again to %s release %d, by directive %d, and this host has obeyed %d: was the server restored from a backup? If it is meant, say it again", r.Type, r.Seq, r.Serial, last)
	if r.Serial < 0 || r.Serial > api.MaxSerial {
		text = fmt.Sprintf("the server asks to %s release %d by directive %d, which is no number of one", r.Type, r.Seq, r.Serial)
	}
	return text
}

// leave obeys the directive "revert": back to the last system that this host
// confirmed before, and the entry is denied until somebody says retry.
func (m *Machine) leave(j *Journal, f Facts) {
	a := j.Attempt
	why := fmt.Sprintf("the server asked to leave release %d", a.Seq)
	if a.Phase != PhaseDone {
		a.Reason = why + " before it was begun"
		m.deny(j, a)
		m.finish(j, f, api.Reverted)
		return
	}
	switch a.Outcome {
	case api.OK:
		if f.Current != a.Path || f.Profile != a.Path {
			return // a person's system runs or boots
		}
	case api.Testing:
		if f.Current != a.Path {
			return
		}
	case api.Armed:
		if f.Profile != a.Path {
			return
		}
	default:
		return // nothing of it runs or boots
	}
	to := j.Confirmed
	if to == a.Path {
		to = j.ConfirmedBefore
	}
	if to == "" || to == a.Path {
		a.Note = why + ", but it has confirmed no other system that it could go back to"
		return
	}
	if a.BootID != f.BootID {
		a.Began, a.BootID = f.Now, f.BootID
	}
	a.Leaving, a.Previous, a.Lost = true, to, 0
	a.ProfileTouched = f.Profile != to
	a.ProfileLink, a.ProfilePath = "", to // a new generation: the old one may be gone
	a.Reason = why
	m.deny(j, a)
	m.goBack(j, a, f)
}

// goBack begins a way back that nothing is wrong with: there is time for
// hooks.pre_switch.
func (m *Machine) goBack(j *Journal, a *Attempt, f Facts) {
	a.Owed = f.Current != a.Previous && (m.Rules.Hooks[HookPreSwitch] || m.Rules.Hooks[HookPostSwitch])
	if a.Owed && m.Rules.Hooks[HookPreSwitch] {
		m.enter(j, f, api.Reverting, PhasePre)
		return
	}
	m.wayBack(j, a, f)
}

// wayBack goes on with it.
func (m *Machine) wayBack(j *Journal, a *Attempt, f Facts) {
	if a.TestEnds {
		m.unswitch(j, a, f)
		return
	}
	m.revert(j, a, f, a.Reason)
}

// endTest is the end of a test by its deadline.
func (m *Machine) endTest(j *Journal, a *Attempt, f Facts) {
	a.TestUntil = 0
	if a.Previous == "" || a.Previous == a.Path {
		a.Note = "the test's time is over, but no system is known to go back to"
		m.ended(j, a, f)
		return
	}
	a.TestEnds, a.Lost = true, 0
	a.Reason = "the test's time was over"
	m.goBack(j, a, f)
}
