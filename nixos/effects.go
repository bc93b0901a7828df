package nixos

import (
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/signing"
)

// A Phase is what an attempt does next. Which effect is due follows from it
// alone, so that an agent that starts again goes on where the last one was.
type Phase string

// The phases, each with the State that people see.
const (
	PhasePrepare   Phase = "prepare"   // staging: manifest, narinfos, free space
	PhaseJitter    Phase = "jitter"    // staging: until RetryAt, so that not all hosts download at once
	PhaseRealise   Phase = "realise"   // staging: download, compare
	PhaseRetry     Phase = "retry"     // stage_failed: until RetryAt
	PhaseReady     Phase = "ready"     // staged, waiting
	PhaseInspect   Phase = "inspect"   // draining: what is the host like
	PhaseCheck     Phase = "check"     // draining: switch-to-configuration check
	PhasePre       Phase = "pre"       // draining: hooks.pre_switch
	PhaseAnnounce  Phase = "announce"  // draining: is the server there
	PhaseSwitch    Phase = "switch"    // activating: switch-to-configuration test
	PhaseDry       Phase = "dry"       // activating: switch-to-configuration dry-activate
	PhaseObserve   Phase = "observe"   // probation: units and checks
	PhaseConfirm   Phase = "confirm"   // probation: the new system's agent reports
	PhaseOwn       Phase = "own"       // probation: does the server refuse this agent, too
	PhaseWitness   Phase = "witness"   // probation: is it the server or us
	PhaseProfile   Phase = "profile"   // committing
	PhaseBoot      Phase = "boot"      // committing: switch-to-configuration boot
	PhaseKeep      Phase = "keep"      // ok: the root of what is confirmed
	PhaseUnprofile Phase = "unprofile" // reverting: the profile's old generation
	PhaseUnboot    Phase = "unboot"    // reverting: the old system's boot entry
	PhaseUnswitch  Phase = "unswitch"  // reverting: the old system, live
	PhasePost      Phase = "post"      // hooks.post_switch, before the state After
	PhasePreReboot Phase = "preReboot" // armed: hooks.pre_reboot
	PhaseReboot    Phase = "reboot"    // armed: the reboot itself
	PhaseDone      Phase = "done"      // Outcome says how it ended
)

// phases are all of them: a journal with another one is of a newer agent.
var phases = []Phase{
	PhasePrepare, PhaseJitter, PhaseRealise, PhaseRetry, PhaseReady, PhaseInspect, PhaseCheck, PhasePre, PhaseAnnounce,
	PhaseSwitch, PhaseDry, PhaseObserve, PhaseConfirm, PhaseOwn, PhaseWitness, PhaseProfile, PhaseBoot, PhaseKeep,
	PhaseUnprofile, PhaseUnboot, PhaseUnswitch, PhasePost, PhasePreReboot, PhaseReboot, PhaseDone,
}

// Facts are what a host is like, read at the moment of an event.
type Facts struct {
	BootID string
	Now    int64     // milliseconds on the boot's clock, suspended time included
	Wall   time.Time // believed only where the design says so

	Current     string // store path, "" if there is none
	Booted      string
	Profile     string // store path that the profile names
	ProfileLink string // the generation link, as "system-42-link"
	Generation  int64  // of the profile; 0 if none
	CurrentGen  int64  // newest generation that is Current; 0 if none
	CurrentAge  int64  // seconds since Current was activated

	NeedReboot []string // what differs between Booted and Current
	Pause      *api.Hold
	Random     string // fresh 32 hex digits
}

// A Run is one execution of switch-to-configuration.
type Run struct {
	ID     string `json:"id"`     // Attempt.RunID
	Path   string `json:"path"`   // of the system whose script it is
	Action string `json:"action"` // test, boot, dry-activate, check
}

// An Effect is something to be done outside the machine.
type Effect interface{ effect() }

// The effects. Each can be begun again after a crash.
type (
	// Poll waits for the server's word, For at most, or with Now not at all.
	Poll struct {
		ETag string
		For  time.Duration // 0: as long as the configuration says
		Now  bool
		// Until is when something is due by the boot's clock: no longer than
		// that. 0: nothing is.
		Until int64
	}
	// Prepare checks all that can be checked before a download.
	// Suspect are paths whose bytes a power cut may have damaged.
	Prepare struct {
		Closure  signing.Digest
		Root     string
		Imported []narinfo.Path
		Suspect  []narinfo.Path
	}
	// Realise downloads, compares and roots. Imported are the paths that were
	// not there before the attempt.
	Realise struct {
		Closure  signing.Digest
		Root     string
		Imported []narinfo.Path
	}
	// Inspect looks at the host and protects the running system.
	Inspect struct{ Path string }
	// Announce reports, and waits for the answer.
	Announce struct{}
	// AskOwn is the same, where it counts how it is refused.
	AskOwn struct{}
	// Switch starts the run unless it was started, and waits for its end.
	Switch struct {
		Run   Run
		Delay time.Duration
	}
	// Observe looks at units and runs the checks, after a delay.
	Observe struct {
		Path  string
		Delay time.Duration
	}
	// Confirm lets the system's own agent report with the nonce.
	Confirm struct{ Path, Nonce string }
	// Witness asks whether anything else can be reached.
	Witness struct{}
	// SetProfile makes Path the profile's newest generation, unless Live and
	// the host runs another system by now.
	SetProfile struct {
		Path string
		Live bool
	}
	// ResetProfile goes back to a generation link, or where there is none to a
	// path, and removes the newer generations of Bad: boot loaders write an
	// entry for every generation, and what they cannot write for one they
	// cannot write for any.
	ResetProfile struct{ Link, Path, Bad string }
	// Keep protects the confirmed system, and the one confirmed before it.
	Keep struct{ Path, Before string }
	// RunHook runs a command of the configuration, with variables that say
	// what it is about.
	RunHook struct {
		Hook  HookName
		Delay time.Duration
		Env   []string
	}
	// Reboot reboots the host.
	Reboot struct{}
)

func (Poll) effect()         {}
func (Prepare) effect()      {}
func (Realise) effect()      {}
func (Inspect) effect()      {}
func (Announce) effect()     {}
func (AskOwn) effect()       {}
func (Switch) effect()       {}
func (Observe) effect()      {}
func (Confirm) effect()      {}
func (Witness) effect()      {}
func (SetProfile) effect()   {}
func (ResetProfile) effect() {}
func (Keep) effect()         {}
func (RunHook) effect()      {}
func (Reboot) effect()       {}

// An Event is what an effect came to.
type Event interface{ event() }

// The events. An Err in words means that the effect could not be carried out.
type (
	// Started is the first event of an agent.
	Started struct{}
	// Polled has a nil Desired if nothing is new, or the server is away.
	Polled struct {
		Desired *api.Desired
		ETag    string
	}
	// Prepared is what was found before a download. Reject means that another try would come to the same.
	Prepared struct {
		Missing  []narinfo.Path
		Verified []narinfo.Path // suspects that are good, or gone
		Bytes    int64          // to download for them
		Differs  []string
		Err      string
		Reject   bool
	}
	// Realised is like Prepared.
	Realised struct {
		Differs []string
		Err     string
		Reject  bool
	}
	// Inspected is the host before a switch. Busy says who else switches right now.
	Inspected struct {
		Failed    []string // units
		RebootFor []string
		Inhibited []string
		CanCheck  bool // its switch-to-configuration has the action check
		Busy      string
		Err       string
	}
	// Announced is OK if the server took it.
	Announced struct{ OK bool }
	// Asked is how the server took a report of the running agent.
	Asked struct{ OK, Refused bool }
	// Switched is the end of a run, or why there was none.
	Switched struct {
		Exit int
		Lost bool   // it was begun, is not running, and left no result
		Busy string // it was not begun: who else switches, or what failed
		Text string // the service's result, if it is not an exit status
		Last string // what it wrote at last, if it failed
	}
	// Observed has the units that are failed now, and a result of every check
	// that is not off.
	Observed struct {
		Failed []string
		Checks []api.Check
		Err    string
	}
	// Probed is what the new system's agent came to.
	Probed struct {
		Outcome ProbeOutcome
		Text    string
		By      string // which binary and configuration
	}
	// Witnessed tells whether any witness could be reached.
	Witnessed struct {
		Alive bool
		Text  string
	}
	// ProfileSet is the end of SetProfile and ResetProfile.
	ProfileSet struct {
		Drifted bool
		Err     string
	}
	// Kept is the end of Keep.
	Kept struct{ Err string }
	// Hooked is the end of RunHook.
	Hooked struct{ Err string }
	// StillUp is that Reboot did not end this boot.
	StillUp struct{ Err string }
)

func (Started) event()    {}
func (Polled) event()     {}
func (Prepared) event()   {}
func (Realised) event()   {}
func (Inspected) event()  {}
func (Announced) event()  {}
func (Asked) event()      {}
func (Switched) event()   {}
func (Observed) event()   {}
func (Probed) event()     {}
func (Witnessed) event()  {}
func (ProfileSet) event() {}
func (Kept) event()       {}
func (Hooked) event()     {}
func (StillUp) event()    {}

// ProbeOutcome is how `narwharf agent probe` ended.
type ProbeOutcome string

// The outcomes.
const (
	ProbeOK          ProbeOutcome = "ok"          // the server took the report
	ProbeRefused     ProbeOutcome = "refused"     // it answered, and did not take it
	ProbeUnreachable ProbeOutcome = "unreachable" // no answer, or from a broken proxy
	ProbeBroken      ProbeOutcome = "broken"      // the new agent does not run, or its configuration is wrong
)
