package machine

import (
	"fmt"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/journal"
	"narwharf/signing"
)

// Exit codes of switch-to-configuration; see docs/agent.md.
const (
	exitFine        = 0
	ExitUnitsFailed = 4 // the system is switched: probation decides
	ExitReboot      = 100
)

// ended tells whether a run came to its end by itself.
func (ev Switched) ended() bool { return !ev.Lost && ev.Text == "" }

func (ev Switched) exited(code int) bool { return ev.ended() && ev.Exit == code }

// switched tells whether the system was switched to, whatever its units did.
func (ev Switched) switched() bool { return ev.exited(exitFine) || ev.exited(ExitUnitsFailed) }

func (ev Switched) exit() *int {
	if !ev.ended() {
		return nil
	}
	return &ev.Exit
}

// String says how a run ended.
func (ev Switched) String() string {
	switch {
	case ev.Lost:
		return "ended without a result"
	case ev.Text != "":
		return "ended with " + ev.Text
	case ev.Last != "":
		return fmt.Sprintf("exited with %d (%s)", ev.Exit, ev.Last)
	}
	return fmt.Sprintf("exited with %d", ev.Exit)
}

// maxLost is how many runs without a result are begun again.
const maxLost = 3

// ran makes a row's function of one for the end of a run. What could not be
// begun is tried again, and so is what left no result, where it may be run twice.
func ran(end func(*turn, Switched) arrow) func(*turn, Event) arrow {
	return on(func(t *turn, ev Switched) arrow {
		a := t.a
		activation := a.Phase == journal.Switch || a.Phase == journal.Dry
		switch {
		case ev.Busy != "":
			return notBegun(t, ev.Busy)
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

// notBegun is a run that could not be begun.
func notBegun(t *turn, why string) arrow {
	a := t.a
	switch a.Phase {
	case journal.Check, journal.Switch, journal.Dry:
		a.Activated = false // nothing happened yet
		return holdBack(t, why, 10*time.Second)
	}
	if a.Tries++; a.Tries < maxBusy {
		return arrow{}
	}
	if a.Phase == journal.SetBoot {
		return revert(t, "switch-to-configuration boot could not be run: "+why)
	}
	return revertFailed(t, "the way back could not be run: "+why)
}

// activated is the end of `switch-to-configuration test`.
func activated(t *turn, ev Switched) arrow {
	a, f := t.a, t.f
	a.SwitchExit = ev.exit()
	t.measure("activate", a.ProbationAt)
	switch {
	case ev.exited(ExitReboot) && a.Action == signing.Auto && f.Current == a.Previous:
		a.ByBoot = true
		a.RebootFor = Sorted(append(a.RebootFor, "init-interface-version"))
		return commit(t)
	case ev.switched() && f.Current == a.Path:
		return beginProbation(t)
	case ev.switched():
		return revert(t, fmt.Sprintf("switch-to-configuration %s, but the running system is %s", ev, f.Current))
	}
	return revert(t, fmt.Sprintf("switch-to-configuration %s", ev))
}

// dryActivated is the end of `switch-to-configuration dry-activate`.
func dryActivated(t *turn, ev Switched) arrow {
	t.a.SwitchExit = ev.exit()
	if !ev.exited(exitFine) {
		t.a.Reason = fmt.Sprintf("dry-activate %s", ev)
	}
	w := finish(t, api.DryRunDone)
	w.err = t.a.Reason
	return w
}
