package machine

import (
	"fmt"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/signing"
)

// maxLost is how many runs without a result are begun again.
const maxLost = 3

// ran makes a row's function of one for the end of a run. What could not be
// begun is tried again, and so is what left no result, where it may be run twice.
func ran(end func(*turn, effect.Switched) arrow) func(*turn, effect.Event) arrow {
	return on(func(t *turn, ev effect.Switched) arrow {
		a := t.a
		activation := a.Phase == journal.Switch || a.Phase == journal.Dry
		switch {
		case ev.Busy != "":
			return notBegun(t, ev)
		case ev.Lost && !activation && a.LostRuns < maxLost:
			a.LostRuns++
			return arrow{rerun: true}
		}
		return end(t, ev)
	})
}

// maxBusy tries of a run that changes the boot entry or leads back are five
// minutes.
const maxBusy = 150

// notBegun is a run that could not be begun, or found somebody else at work.
func notBegun(t *turn, ev effect.Switched) arrow {
	a, why := t.a, ev.Busy
	switch a.Phase {
	case journal.Check, journal.Switch, journal.Dry:
		a.Activated = false // nothing happened yet
		return holdBack(t, why, 10*time.Second)
	}
	if a.Tries++; a.Tries < maxBusy {
		return arrow{rerun: ev.Began}
	}
	if a.Phase == journal.SetBoot {
		return revert(t, "switch-to-configuration boot could not be run: "+why)
	}
	return revertFailed(t, "the way back could not be run: "+why)
}

func activated(t *turn, ev effect.Switched) arrow {
	a, f := t.a, t.f
	a.SwitchExit = ev.Code()
	t.measure("activate", a.ProbationAt)
	switch {
	case ev.Exited(effect.ExitReboot) && a.Action == signing.Auto && f.Current == a.Previous:
		a.ByBoot = true
		a.RebootFor = journal.Set(append(a.RebootFor, "init-interface-version"))
		return commit(t)
	case ev.SwitchedTo() && f.Current == a.Path:
		return beginProbation(t)
	case ev.SwitchedTo():
		return revert(t, fmt.Sprintf("switch-to-configuration %s, but the running system is %s", ev, f.Current))
	}
	return revert(t, fmt.Sprintf("switch-to-configuration %s", ev))
}

func dryActivated(t *turn, ev effect.Switched) arrow {
	t.a.SwitchExit = ev.Code()
	if !ev.Exited(effect.ExitFine) {
		t.a.Reason = fmt.Sprintf("dry-activate %s", ev)
	}
	w := finish(t, api.DryRunDone)
	w.err = t.a.Reason
	return w
}

// commit makes the system the one that boots.
func commit(t *turn) arrow {
	t.a.CommitAt, t.a.ProfileTouched = t.f.Now, true
	return to(journal.SetProfile)
}

func profileSet(t *turn, ev effect.ProfileSet) arrow {
	if a := t.a; a.ProfileLink == "" && ev.Path == a.ProfilePath && ev.Path != a.Path {
		a.ProfileLink = ev.Link // it had no generation when the way back was noted
	}
	switch {
	case ev.Drifted:
		return switchedInProbation(t)
	case ev.Err != "":
		return revert(t, "the system profile could not be set: "+ev.Err)
	}
	return runs(journal.SetBoot, "boot")
}

func bootSet(t *turn, ev effect.Switched) arrow {
	a, f := t.a, t.f
	unbooted := a.ByBoot && !a.Rebooted
	if unbooted {
		a.SwitchExit = ev.Code()
	}
	if !ev.Exited(effect.ExitFine) {
		return revert(t, fmt.Sprintf("the boot entry could not be written: switch-to-configuration %s", ev))
	}
	t.measure("commit", a.CommitAt)
	switch {
	case f.Profile != a.Path:
		return drift(t, fmt.Sprintf("the system profile was changed to %s while this one was committed", f.Profile))
	case unbooted && f.Current == a.Path:
		// It was booted, or a person switched to it, before this was known.
		a.Rebooted = true
		return beginProbation(t)
	case f.Current == a.Path:
		t.j.Confirm(a.Path)
		return postFirst(t, arrow{phase: journal.Protect, state: api.OK})
	case a.ByBoot || a.Resumed: // or power was lost before the boot entry was there
		return finish(t, api.Armed)
	}
	return drift(t, fmt.Sprintf("the running system was changed to %s while this one was committed", f.Current))
}

func protected(t *turn, ev effect.Protected) arrow {
	if ev.Err == "" {
		t.j.ConfirmedRoot = t.j.Confirmed
	}
	if t.f.Current != t.a.Path {
		return drift(t, fmt.Sprintf("the running system was changed to %s", t.f.Current))
	}
	return finish(t, api.OK)
}
