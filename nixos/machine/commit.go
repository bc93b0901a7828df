package machine

import (
	"fmt"

	"narwharf/hooks/api"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
)

// commit makes the system the one that boots.
func commit(t *turn) arrow {
	t.a.CommitAt, t.a.ProfileTouched = t.f.Now, true
	return to(journal.SetProfile)
}

func profileSet(t *turn, ev effect.ProfileSet) arrow {
	switch {
	case ev.Drifted:
		return switchedInProbation(t)
	case ev.Err != "":
		return revert(t, "the system profile could not be set: "+ev.Err)
	}
	return runs(journal.SetBoot, "boot")
}

// bootSet is the end of `switch-to-configuration boot`.
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

// protected is the end of a commit.
func protected(t *turn, ev effect.Protected) arrow {
	if ev.Err == "" {
		t.j.ConfirmedRoot = t.j.Confirmed
	}
	if t.f.Current != t.a.Path {
		return drift(t, fmt.Sprintf("the running system was changed to %s", t.f.Current))
	}
	return finish(t, api.OK)
}
