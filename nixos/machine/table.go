package machine

import (
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/journal"
)

// A row is all that a phase is.
type row struct {
	// state is what people see with it; "" is one that comes with the arrow.
	state api.State
	// effect is what is due. It follows from the journal alone, and can be begun
	// again after a crash.
	effect func(*Rules, *journal.Journal) Effect
	// on is where the effect's event leads.
	on func(*turn, Event) arrow
	// afterBoot is what it means that another boot ended meanwhile.
	afterBoot func(*turn) arrow
	// atRest is where the host's facts and the server's word lead while nothing
	// is under way; nil in phases in which something is.
	atRest func(*turn) arrow
}

// table is the machine. docs/agent.md has it as it is seen from outside.
var table = map[journal.Phase]row{
	journal.Prepare: {api.Staging, prepareEffect, on(prepared), sameAfterBoot, nil},
	journal.Jitter:  {api.Staging, pollUntilRetry, nil, prepareAgain, jitterOver},
	journal.Realise: {api.Staging, realiseEffect, on(realised), prepareAgain, nil},
	journal.Retry:   {api.StageFailed, pollUntilRetry, nil, sameAfterBoot, retryDue},

	journal.Ready: {"", pollForGrant, nil, sameAfterBoot, ready}, // staged, or waiting

	journal.Inspect:   {api.Draining, inspectEffect, on(inspected), bootedWhileDrained, nil},
	journal.Check:     {api.Draining, runEffect(ofAttempt), ran(checked), bootedWhileDrained, nil},
	journal.PreSwitch: {api.Draining, hookEffect(HookPreSwitch), on(preSwitched), bootedWhileDrained, nil}, // or reverting
	journal.Announce:  {api.Draining, announceEffect, on(announced), bootedWhileDrained, nil},

	journal.Switch: {api.Activating, runEffect(ofAttempt), ran(activated), bootedOnTrial, nil},
	journal.Dry:    {api.Activating, runEffect(ofAttempt), ran(dryActivated), dryAgain, nil},

	journal.Observe: {api.Probation, observeEffect, on(observed), bootedOnTrial, nil},
	journal.Confirm: {api.Probation, confirmEffect, on(probed), bootedOnTrial, nil},
	journal.AskOwn:  {api.Probation, askOwnEffect, on(asked), bootedOnTrial, nil},
	journal.Witness: {api.Probation, witnessEffect, on(witnessed), bootedOnTrial, nil},

	journal.SetProfile: {api.Committing, setProfileEffect, on(profileSet), bootedWhileCommitted, nil},
	journal.SetBoot:    {api.Committing, runEffect(ofAttempt), ran(bootSet), bootedWhileCommitted, nil},
	journal.Protect:    {api.OK, protectEffect, on(protected), sameAfterBoot, nil},

	journal.ResetProfile: {api.Reverting, resetProfileEffect, on(profileReset), revertAgain, nil},
	journal.ResetBoot:    {api.Reverting, runEffect(ofProfile), ran(bootReset), revertAgain, nil},
	journal.SwitchBack:   {api.Reverting, runEffect(ofPrevious), ran(switchedBack), revertAgain, nil},

	journal.PostSwitch: {"", hookEffect(HookPostSwitch), on(postSwitched), bootedBeforePost, nil}, // that of before
	journal.PreReboot:  {api.Armed, hookEffect(HookPreReboot), on(preRebooted), armedAgain, nil},
	journal.Reboot:     {api.Armed, rebootEffect, on(stillUp), armedAgain, nil},

	journal.Done: {"", pollAtRest, nil, bootedAtRest, outcome}, // the outcome
}

// on makes a row's function of one for the event that the phase is about. Any
// other event is none of this phase.
func on[E Event](f func(*turn, E) arrow) func(*turn, Event) arrow {
	return func(t *turn, ev Event) arrow {
		if ev, ok := ev.(E); ok {
			return f(t, ev)
		}
		return arrow{}
	}
}

func prepareEffect(_ *Rules, j *journal.Journal) Effect {
	a := j.Attempt
	return Prepare{Closure: a.Closure, Root: a.Path, Imported: a.Imported, Suspect: j.Suspect}
}

func realiseEffect(_ *Rules, j *journal.Journal) Effect {
	a := j.Attempt
	return Realise{Closure: a.Closure, Root: a.Path, Imported: a.Imported}
}

func inspectEffect(_ *Rules, j *journal.Journal) Effect { return Inspect{Path: j.Attempt.Path} }
func announceEffect(*Rules, *journal.Journal) Effect    { return Announce{} }
func askOwnEffect(*Rules, *journal.Journal) Effect      { return AskOwn{} }
func witnessEffect(*Rules, *journal.Journal) Effect     { return Witness{} }
func rebootEffect(*Rules, *journal.Journal) Effect      { return Reboot{} }

func observeEffect(r *Rules, j *journal.Journal) Effect {
	if !j.Attempt.Answered {
		return Observe{Path: j.Attempt.Path}
	}
	return Observe{Path: j.Attempt.Path, Delay: r.Interval}
}

func confirmEffect(_ *Rules, j *journal.Journal) Effect {
	return Confirm{Path: j.Attempt.Path, Nonce: j.Attempt.Nonce}
}

func setProfileEffect(_ *Rules, j *journal.Journal) Effect {
	a := j.Attempt
	return SetProfile{Path: a.Path, Live: !a.ByBoot && !a.Resumed}
}

func resetProfileEffect(_ *Rules, j *journal.Journal) Effect {
	a := j.Attempt
	return ResetProfile{Link: a.ProfileLink, Path: a.ProfilePath, Bad: a.Path}
}

func protectEffect(_ *Rules, j *journal.Journal) Effect {
	return Protect{Path: j.Confirmed, Before: j.ConfirmedBefore}
}

// Whose switch-to-configuration is run.
func ofAttempt(a *journal.Attempt) string  { return a.Path }
func ofProfile(a *journal.Attempt) string  { return a.ProfilePath }
func ofPrevious(a *journal.Attempt) string { return a.Previous }

func runEffect(of func(*journal.Attempt) string) func(*Rules, *journal.Journal) Effect {
	return func(_ *Rules, j *journal.Journal) Effect {
		a := j.Attempt
		e := Switch{Run: journal.Run{ID: a.RunID(), Path: of(a), Action: a.RunAction}}
		if a.Tries > 0 {
			e.Delay = 2 * time.Second
		}
		return e
	}
}

// lookAgain is how long a poll parks where something on the host may end the
// wait, of which no server tells.
const lookAgain = 15 * time.Second

func pollUntilRetry(_ *Rules, j *journal.Journal) Effect {
	return Poll{ETag: j.ETag, For: lookAgain, Until: j.Attempt.RetryAt}
}

func pollForGrant(r *Rules, j *journal.Journal) Effect {
	if !j.Attempt.Asked {
		// The grant may be here since before the download, or be gone by now.
		return Poll{ETag: j.ETag, Now: true}
	}
	return pollUntilRetry(r, j)
}

func pollAtRest(r *Rules, j *journal.Journal) Effect {
	a := j.Attempt
	armed := a.Outcome == api.Armed
	switch {
	case armed && !a.Asked:
		// Nothing may be in the way of the reboot; a parked poll would be.
		return Poll{ETag: j.ETag, Now: true}
	case a.TestUntil != 0, armed && (len(r.Windows) > 0 || a.RetryAt != 0):
		return Poll{ETag: j.ETag, For: lookAgain} // a time comes, by this host's clock
	}
	return Poll{ETag: j.ETag}
}
