package effect

import (
	"fmt"
	"time"

	"narwharf/nixos/journal"
)

// What is due follows from a journal with an attempt. The machine's table says
// which of these it is in each phase.

// PrepareOf is the staging's first part.
func PrepareOf(j *journal.Journal) Effect {
	a := j.Attempt
	return Prepare{Closure: a.Closure, Root: a.Path, Imported: a.Imported, Suspect: j.Suspect}
}

// RealiseOf is its second.
func RealiseOf(j *journal.Journal) Effect {
	a := j.Attempt
	return Realise{Closure: a.Closure, Root: a.Path, Imported: a.Imported}
}

// InspectOf looks at the host before a switch to the attempt's system.
func InspectOf(j *journal.Journal) Effect { return Inspect{Path: j.Attempt.Path} }

// ConfirmOf lets the attempt's system report.
func ConfirmOf(j *journal.Journal) Effect {
	return Confirm{Path: j.Attempt.Path, Nonce: j.Attempt.Nonce}
}

// SetProfileOf makes the attempt's system the profile's.
func SetProfileOf(j *journal.Journal) Effect {
	a := j.Attempt
	return SetProfile{Path: a.Path, Live: !a.ByBoot && !a.Resumed}
}

// ResetProfileOf undoes that.
func ResetProfileOf(j *journal.Journal) Effect {
	a := j.Attempt
	return ResetProfile{Link: a.ProfileLink, Path: a.ProfilePath, Bad: a.Path}
}

// ProtectOf roots what the host has confirmed.
func ProtectOf(j *journal.Journal) Effect {
	return Protect{Path: j.Confirmed, Before: j.ConfirmedBefore}
}

// RunOf is a run of the attempt's own switch-to-configuration.
func RunOf(j *journal.Journal) Effect { return run(j.Attempt, j.Attempt.Path) }

// RunOfProfile is one of the system's that the profile had before.
func RunOfProfile(j *journal.Journal) Effect { return run(j.Attempt, j.Attempt.ProfilePath) }

// RunOfPrevious is one of the system's that ran before.
func RunOfPrevious(j *journal.Journal) Effect { return run(j.Attempt, j.Attempt.Previous) }

// busyDelay is between two tries to begin a run while somebody else switches.
const busyDelay = 2 * time.Second

func run(a *journal.Attempt, path string) Effect {
	e := Switch{Run: journal.Run{ID: a.RunID(), Path: path, Action: a.RunAction}}
	if a.Tries > 0 {
		e.Delay = busyDelay
	}
	return e
}

// PreSwitchOf runs hooks.pre_switch.
func PreSwitchOf(j *journal.Journal) Effect { return hook(HookPreSwitch, j.Attempt) }

// PostSwitchOf runs hooks.post_switch.
func PostSwitchOf(j *journal.Journal) Effect { return hook(HookPostSwitch, j.Attempt) }

// PreRebootOf runs hooks.pre_reboot.
func PreRebootOf(j *journal.Journal) Effect { return hook(HookPreReboot, j.Attempt) }

func hook(name HookName, a *journal.Attempt) Effect {
	return RunHook{Hook: name, Delay: time.Duration(a.PostTries) * 10 * time.Second, Env: []string{
		"NARWHARF_ATTEMPT=" + a.ID, fmt.Sprintf("NARWHARF_SEQ=%d", a.Seq), "NARWHARF_ACTION=" + string(a.Action),
		"NARWHARF_PATH=" + a.Path, "NARWHARF_PREVIOUS=" + a.Previous, "NARWHARF_STATE=" + string(a.After),
	}}
}
