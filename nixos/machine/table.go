package machine

import (
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
)

// A row is all that a phase is.
type row struct {
	// state is what people see with it; "" is one that comes with the arrow.
	state api.State
	// effect is what is due. It follows from the journal alone, and can be begun
	// again after a crash.
	effect func(*Rules, *journal.Journal, *journal.Attempt) effect.Effect
	// on is where the effect's event leads.
	on func(*turn, effect.Event) arrow
	// afterBoot is what it means that another boot ended meanwhile.
	afterBoot func(*turn) arrow
	// atRest is where the host's facts and the server's word lead while nothing
	// is under way; nil in phases in which something is.
	atRest func(*turn) arrow
}

// table is the machine. docs/agent.md has it as it is seen from outside.
var table = map[journal.Phase]row{
	// state, effect, where its event leads, after a boot, at rest
	journal.Prepare: {api.Staging, of(effect.PrepareOf), on(prepared), sameAfterBoot, nil},
	journal.Jitter:  {api.Staging, pollUntilRetry, nil, prepareAgain, jitterOver},
	journal.Realise: {api.Staging, of(effect.RealiseOf), on(realised), prepareAgain, nil},
	journal.Retry:   {api.StageFailed, pollUntilRetry, nil, sameAfterBoot, retryDue},

	journal.Ready: {"", pollForGrant, nil, sameAfterBoot, ready}, // staged, or waiting

	journal.Inspect:   {api.Draining, inspect, on(inspected), bootedWhileDrained, nil},
	journal.Check:     {api.Draining, of(effect.SwitchOf), ran(checked), bootedWhileDrained, nil},
	journal.PreSwitch: {api.Draining, of(effect.HookOf(effect.HookPreSwitch)), on(preSwitched), bootedWhileDrained, nil}, // or reverting
	journal.Announce:  {api.Draining, just(effect.Announce{}), on(announced), bootedWhileDrained, nil},

	journal.Switch: {api.Activating, of(effect.SwitchOf), ran(activated), bootedOnTrial, nil},
	journal.Dry:    {api.Activating, of(effect.SwitchOf), ran(dryActivated), dryAgain, nil},

	journal.Observe: {api.Probation, observe, on(observed), bootedOnTrial, nil},
	journal.Confirm: {api.Probation, of(effect.ConfirmOf), on(probed), bootedOnTrial, nil},
	journal.AskOwn:  {api.Probation, just(effect.AskOwn{}), on(asked), bootedOnTrial, nil},
	journal.Witness: {api.Probation, just(effect.Witness{}), on(witnessed), bootedOnTrial, nil},

	journal.SetProfile: {api.Committing, of(effect.SetProfileOf), on(profileSet), bootedWhileCommitted, nil},
	journal.SetBoot:    {api.Committing, of(effect.SwitchOf), ran(bootSet), bootedWhileCommitted, nil},
	journal.Protect:    {api.OK, of(effect.ProtectOf), on(protected), sameAfterBoot, nil},

	journal.ResetProfile: {api.Reverting, of(effect.ResetProfileOf), on(profileReset), revertAgain, nil},
	journal.ResetBoot:    {api.Reverting, of(effect.SwitchOf), ran(bootReset), revertAgain, nil},
	journal.SwitchBack:   {api.Reverting, of(effect.SwitchOf), ran(switchedBack), revertAgain, nil},

	journal.PostSwitch: {"", of(effect.HookOf(effect.HookPostSwitch)), on(postSwitched), bootedBeforePost, nil}, // the state stays
	journal.PreReboot:  {api.Armed, of(effect.HookOf(effect.HookPreReboot)), on(preRebooted), armedAgain, nil},
	journal.Reboot:     {api.Armed, just(effect.Reboot{}), on(stillUp), armedAgain, nil},

	journal.Done: {"", pollAtRest, nil, bootedAtRest, outcome}, // the outcome
}

// on makes a row's function of one for the event that the phase is about. Any
// other event is none of this phase.
func on[E effect.Event](f func(*turn, E) arrow) func(*turn, effect.Event) arrow {
	return func(t *turn, ev effect.Event) arrow {
		if ev, ok := ev.(E); ok {
			return f(t, ev)
		}
		return arrow{}
	}
}

func of(due func(*journal.Journal, *journal.Attempt) effect.Effect) func(*Rules, *journal.Journal, *journal.Attempt) effect.Effect {
	return func(_ *Rules, j *journal.Journal, a *journal.Attempt) effect.Effect { return due(j, a) }
}

func just(e effect.Effect) func(*Rules, *journal.Journal, *journal.Attempt) effect.Effect {
	return func(*Rules, *journal.Journal, *journal.Attempt) effect.Effect { return e }
}

func inspect(r *Rules, _ *journal.Journal, a *journal.Attempt) effect.Effect {
	return effect.InspectOf(r.Specialisation, a)
}

func observe(r *Rules, _ *journal.Journal, a *journal.Attempt) effect.Effect {
	e := effect.Observe{Path: a.Switched(), From: a.Previous}
	if a.Answered {
		e.Delay = r.Interval
	}
	return e
}

// lookAgain is how long a poll parks where something on the host may end the
// wait, of which no server tells.
const lookAgain = 15 * time.Second

func pollUntilRetry(_ *Rules, j *journal.Journal, a *journal.Attempt) effect.Effect {
	return effect.Poll{ETag: j.ETag, For: lookAgain, Until: a.RetryAt}
}

func pollForGrant(r *Rules, j *journal.Journal, a *journal.Attempt) effect.Effect {
	if !a.Asked {
		// The grant may be here since before the download, or be gone by now.
		return effect.Poll{ETag: j.ETag, Now: true}
	}
	return pollUntilRetry(r, j, a)
}

func pollAtRest(r *Rules, j *journal.Journal, a *journal.Attempt) effect.Effect {
	armed := a.Outcome == api.Armed
	switch {
	case a.DriftAt != 0:
		return effect.Poll{ETag: j.ETag, For: lookAgain, Until: a.DriftAt + r.Drift.Milliseconds()}
	case armed && !a.Asked:
		// Nothing may be in the way of the reboot; a parked poll would be.
		return effect.Poll{ETag: j.ETag, Now: true}
	case a.TestUntil != 0, armed && (len(r.Windows) > 0 || a.RetryAt != 0):
		return effect.Poll{ETag: j.ETag, For: lookAgain} // a time comes, by this host's clock
	}
	return effect.Poll{ETag: j.ETag}
}
