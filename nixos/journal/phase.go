package journal

import "slices"

// A Phase is what an attempt does next. The effect that is due follows from it
// and the rest of the journal, so that an agent that starts again goes on where
// the last one was. Package machine has the table of what each phase does.
type Phase string

// The phases, by the state that people see.
const (
	Prepare Phase = "prepare" // staging: manifest, narinfos, free space
	Jitter  Phase = "jitter"  // staging: waits until RetryAt, so that not all hosts download at once
	Realise Phase = "realise" // staging: download, compare
	Retry   Phase = "retry"   // stage_failed: waits until RetryAt

	Ready Phase = "ready" // staged, or waiting

	Inspect   Phase = "inspect"  // draining: what is the host like
	Check     Phase = "check"    // draining: switch-to-configuration check
	PreSwitch Phase = "pre"      // draining, or reverting: hooks.pre_switch
	Announce  Phase = "announce" // draining: is the server there

	Switch Phase = "switch" // activating: switch-to-configuration test
	Dry    Phase = "dry"    // activating: switch-to-configuration dry-activate

	Observe Phase = "observe" // probation: units and checks
	Confirm Phase = "confirm" // probation: the new system's agent reports
	AskOwn  Phase = "own"     // probation: does the server refuse the running agent, too
	Witness Phase = "witness" // probation: is it the server or the host that is cut off

	SetProfile Phase = "profile" // committing: the system profile
	SetBoot    Phase = "boot"    // committing: switch-to-configuration boot
	Protect    Phase = "keep"    // ok: the garbage collector's root of what is confirmed

	ResetProfile Phase = "unprofile" // reverting: the profile's old generation
	ResetBoot    Phase = "unboot"    // reverting: the old system's boot entry
	SwitchBack   Phase = "unswitch"  // reverting: the old system, live

	PostSwitch Phase = "post"      // hooks.post_switch, before the state After
	PreReboot  Phase = "preReboot" // armed: hooks.pre_reboot
	Reboot     Phase = "reboot"    // armed: the reboot itself

	Done Phase = "done" // Outcome says how it ended
)

// Phases are all of them: a journal with another one is of a newer agent.
var Phases = []Phase{
	Prepare, Jitter, Realise, Retry, Ready, Inspect, Check, PreSwitch, Announce, Switch, Dry, Observe, Confirm, AskOwn, Witness,
	SetProfile, SetBoot, Protect, ResetProfile, ResetBoot, SwitchBack, PostSwitch, PreReboot, Reboot, Done,
}

// The first agents know fewer phases, and wait for ever in one that they do not
// know. A host may come up with such an agent in the middle of an attempt: after
// the reboot into the system of a rollback, or when the running agent was killed
// while a system with an older one was on trial. So a journal names a phase that
// they know, from which they go on rightly, and the exact one in a field that they
// neither read nor write.
var nearest = map[Phase]Phase{
	Jitter:    Prepare,
	AskOwn:    Confirm,
	PreReboot: Done, // armed; they, too, find out where the boot led
	Reboot:    Done,
}

// noneNear are phases from which they could only do something wrong: leave out a
// hook that brings the host's service back, or go forward on the way back. The
// journal is of a newer version then, which they do not touch.
var noneNear = []Phase{Check, PreSwitch, PostSwitch}

// forEarlier is the journal as it is written.
func (j *Journal) forEarlier() *Journal {
	out := *j
	out.Version = 1
	a := j.Attempt
	if a == nil {
		return &out
	}
	if near, ok := nearest[a.Phase]; ok {
		b := *a
		b.Phase, b.Exact = near, a.Phase
		out.Attempt = &b
	} else if slices.Contains(noneNear, a.Phase) {
		out.Version = Version
	}
	return &out
}

// restoreExact undoes forEarlier. A phase that this agent does not know either
// stays what it is nearest to.
func (a *Attempt) restoreExact() {
	if near, ok := nearest[a.Exact]; ok && near == a.Phase {
		a.Phase = a.Exact
	}
	a.Exact = ""
}
