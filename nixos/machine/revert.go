package machine

import (
	"cmp"
	"fmt"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
)

// revert leads back to the system that ran before. The entry is not tried again.
func revert(t *turn, why string) arrow {
	a := t.a
	a.Reason = why
	t.j.Deny()
	switch {
	case a.Previous == "" || a.Previous == a.Path:
		return revertFailed(t, "no earlier system is known to go back to")
	case a.ProfileTouched:
		return to(journal.ResetProfile)
	}
	return switchBack(t)
}

// revertFailed ends a way back that led nowhere.
func revertFailed(t *turn, why string) arrow {
	t.a.Reason += "; " + why
	return finish(t, api.Failed)
}

// obeyRevert goes back to the last system that this host confirmed before. The
// entry is denied until somebody says retry.
func obeyRevert(t *turn) arrow {
	j, a, f := t.j, t.a, t.f
	why := fmt.Sprintf("the server asked to leave release %d", a.Seq)
	if a.Phase != journal.Done {
		a.Reason = why + " before it was begun"
		j.Deny()
		return finish(t, api.Reverted)
	}
	switch {
	case a.Outcome == api.OK && f.Current == a.Path && f.Profile == a.Path:
	case a.Outcome == api.Testing && f.Current == a.Path:
	case a.Outcome == api.Armed && f.Profile == a.Path:
	default:
		return arrow{} // nothing of it runs or boots, or a person's system does
	}
	back := j.Confirmed
	if back == a.Path {
		back = j.ConfirmedBefore
	}
	if back == "" || back == a.Path {
		a.Note = why + ", but it has confirmed no other system that it could go back to"
		return arrow{}
	}
	if a.BootID != f.BootID {
		a.Began, a.BootID = f.Now, f.BootID
	}
	a.ByDirective, a.Previous, a.LostRuns = true, back, 0
	a.ProfileTouched = f.Profile != back
	a.ProfileLink, a.ProfilePath = "", back // a new generation: the old one may be gone
	a.Reason = why
	j.Deny()
	return goBack(t)
}

// goBack begins a way back because it was asked for, and not because something
// is wrong: there is time for hooks.pre_switch.
func goBack(t *turn) arrow {
	a, hooks := t.a, t.rules.Hooks
	a.PostOwed = t.f.Current != a.Previous && (hooks[effect.HookPreSwitch] || hooks[effect.HookPostSwitch])
	if a.PostOwed && hooks[effect.HookPreSwitch] {
		return arrow{phase: journal.PreSwitch, state: api.Reverting}
	}
	return goBackNow(t)
}

func goBackNow(t *turn) arrow {
	if t.a.TestEnds {
		return switchBack(t)
	}
	return revert(t, t.a.Reason)
}

// endTest is the end of a test by its deadline.
func endTest(t *turn) arrow {
	a := t.a
	a.TestUntil = 0
	if a.Previous == "" || a.Previous == a.Path {
		a.Note = "the test's time is over, but no system is known to go back to"
		return outcome(t)
	}
	a.TestEnds, a.LostRuns = true, 0
	a.Reason = "the test's time was over"
	return goBack(t)
}

// The way back is tried for some minutes: what is in its way may pass, such as a logind that
// is being started again, and a half switched host helps nobody.
const (
	maxBack  = 12 // with 2 s, 4 s … 30 s between them
	backTime = 5 * time.Minute
	// What runs is put right soon, also if profile and boot entry cannot be.
	maxBackBoot = 4
)

// backAgain tells whether a part of the way back that failed is to be tried again.
func backAgain(t *turn, most int, why string) bool {
	a, now := t.a, t.f.Now
	a.BackAt = cmp.Or(a.BackAt, now)
	if a.BackTries++; a.BackTries >= most || now-a.BackAt >= backTime.Milliseconds() {
		return false
	}
	t.j.Error = fmt.Sprintf("%s; %s: it is tried again", a.Reason, why)
	return true
}

func profileReset(t *turn, ev effect.ProfileSet) arrow {
	if ev.Err != "" {
		if backAgain(t, maxBackBoot, "the system profile could not be set back: "+ev.Err) {
			return arrow{}
		}
		return revertFailed(t, "the system profile could not be set back: "+ev.Err)
	}
	return runs(journal.ResetBoot, "boot")
}

func bootReset(t *turn, ev effect.Switched) arrow {
	if !ev.Exited(effect.ExitFine) {
		if backAgain(t, maxBackBoot, fmt.Sprintf("the old system's boot entry could not be written again (%s)", ev)) {
			return arrow{rerun: true}
		}
		// What boots is not known; what runs can still be put right.
		t.a.BootLost = true
		t.a.Reason += fmt.Sprintf("; the old system's boot entry could not be written again (%s)", ev)
	}
	return switchBack(t)
}

// switchBack makes the old system the running one, if it is not.
func switchBack(t *turn) arrow {
	a := t.a
	if !a.Activated && t.f.Current == a.Previous && !a.Rebooted {
		return wentBack(t) // nothing live was touched
	}
	return runs(journal.SwitchBack, "test")
}

func switchedBack(t *turn, ev effect.Switched) arrow {
	runs := t.f.Current == t.a.Previous
	switch {
	case runs && ev.SwitchedTo():
		return wentBack(t)
	case backAgain(t, maxBack, fmt.Sprintf("going back %s", ev)):
		return arrow{rerun: true}
	case runs:
		return revertFailed(t, fmt.Sprintf("going back %s, though the old system is the running one", ev))
	}
	return revertFailed(t, fmt.Sprintf("going back %s, and the running system is %s", ev, t.f.Current))
}

// wentBack is the end of a way back: the old system runs.
func wentBack(t *turn) arrow {
	a := t.a
	switch {
	case a.BootLost:
		return finish(t, api.Failed)
	case a.TestEnds:
		a.TestEnds = false
		a.Note, a.Reason = a.Reason, ""
		return finish(t, api.TestOver)
	case a.ByDirective:
		t.j.Confirmed, t.j.ConfirmedBefore = a.Previous, ""
	}
	return finish(t, api.Reverted)
}
