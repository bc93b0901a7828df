package journal

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
