package effect

import (
	"fmt"
	"time"

	"narwharf/nixos/journal"
	"narwharf/signing"
)

// What is due follows from a journal and its attempt alone. The machine's table says which
// of these it is in each phase.

// PrepareOf is the staging's first part.
func PrepareOf(j *journal.Journal, a *journal.Attempt) Effect {
	return Prepare{Closure: a.Closure, Root: a.Path, Imported: a.Imported, Suspect: j.Suspect}
}

// RealiseOf is its second.
func RealiseOf(_ *journal.Journal, a *journal.Attempt) Effect {
	return Realise{Closure: a.Closure, Root: a.Path, Imported: a.Imported, Last: a.Last || a.Action == signing.DryActivate}
}

// InspectOf looks at the host before a switch to the attempt's system.
func InspectOf(specialisation string, a *journal.Attempt) Effect {
	return Inspect{Path: a.Path, Specialisation: specialisation}
}

// ConfirmOf lets the attempt's system report.
func ConfirmOf(_ *journal.Journal, a *journal.Attempt) Effect {
	return Confirm{Path: a.Switched(), Nonce: a.Nonce}
}

// SetProfileOf makes the attempt's system the profile's.
func SetProfileOf(_ *journal.Journal, a *journal.Attempt) Effect {
	return SetProfile{Path: a.Path, Live: !a.ByBoot && !a.Resumed}
}

// ResetProfileOf undoes that.
func ResetProfileOf(_ *journal.Journal, a *journal.Attempt) Effect {
	return ResetProfile{Link: a.ProfileLink, Path: a.ProfilePath, Bad: a.Path, Delay: backDelay(a)}
}

// ProtectOf roots what the host has confirmed.
func ProtectOf(j *journal.Journal, _ *journal.Attempt) Effect {
	return Protect{Path: j.Confirmed, Before: j.ConfirmedBefore}
}

// RunOf is the run of switch-to-configuration that an attempt has come to.
func RunOf(a *journal.Attempt) journal.Run {
	path := a.Switched()
	switch a.Phase {
	case journal.SetBoot:
		path = a.Path
	case journal.ResetBoot:
		path = a.ProfilePath
	case journal.SwitchBack:
		path = a.Previous
	}
	return journal.Run{ID: fmt.Sprintf("%s-%d-%s", a.ID, a.Run, a.RunAction), Path: path, Action: a.RunAction}
}

// busyDelay is between two tries to begin a run while somebody else switches.
const busyDelay = 2 * time.Second

// backDelay is between two tries of a part of the way back: 2 s, doubling to 30 s.
func backDelay(a *journal.Attempt) time.Duration {
	if a.BackTries == 0 {
		return 0
	}
	return min(busyDelay<<min(a.BackTries-1, 10), 30*time.Second)
}

// SwitchOf carries that run out.
func SwitchOf(_ *journal.Journal, a *journal.Attempt) Effect {
	e := Switch{Run: RunOf(a), Delay: backDelay(a)}
	if a.Tries > 0 {
		e.Delay = busyDelay
	}
	return e
}

// HookOf runs a command of the configuration.
func HookOf(name HookName) func(*journal.Journal, *journal.Attempt) Effect {
	return func(_ *journal.Journal, a *journal.Attempt) Effect {
		return RunHook{Hook: name, Delay: time.Duration(a.PostTries) * 10 * time.Second, Env: []string{
			"NARWHARF_ATTEMPT=" + a.ID, fmt.Sprintf("NARWHARF_SEQ=%d", a.Seq), "NARWHARF_ACTION=" + string(a.Action),
			"NARWHARF_PATH=" + a.Path, "NARWHARF_PREVIOUS=" + a.Previous, "NARWHARF_STATE=" + string(a.After),
		}}
	}
}
