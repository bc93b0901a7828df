package effect

import (
	"fmt"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo"
)

// Facts are what a host is like, read at the moment of an event.
type Facts struct {
	BootID string
	Now    int64     // milliseconds on the boot's clock, suspended time included
	Slept  int64     // how much of them the machine was suspended
	Wall   time.Time // believed only where the design says so

	Current string // store path, "" if there is none
	Booted  string
	// Specialisation is the name of the one of Current that really runs, BootedTo what was
	// really booted of Booted; "" if they are that themselves.
	Specialisation string
	BootedTo       string
	Profile        string // store path that the profile names
	ProfileLink    string // the generation link, as "system-42-link"; "" with a ProfileFault
	Generation     int64  // of the profile; 0 if none
	// ProfileFault is why the profile is no link to one of its generations, "" if it is.
	ProfileFault string
	CurrentGen   int64 // newest generation that is Current; 0 if none
	CurrentAge   int64 // seconds since Current was activated

	NeedReboot []string // what differs between Booted and Current
	Pause      *api.Hold
	Random     string // fresh 32 hex digits
}

// An Event is what an effect came to, one of these types. An Err in words means that the
// effect could not be carried out.
type Event any

// The events.
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
		Specialisation bool     // the system has the one that was asked for
		Failed         []string // units
		RebootFor      []string
		Inhibited      []string
		CanCheck       bool // its switch-to-configuration has the action check
		Busy           string
		Err            string
	}
	// Announced is OK if the server took it.
	Announced struct{ OK bool }
	// Asked is how the server took a report of the running agent.
	Asked struct{ OK, Refused bool }
	// Switched is the end of a run, or why there was none.
	Switched struct {
		Exit int
		Lost bool   // it was begun, is not running, and left no result
		Busy string // it did nothing: who else switches, or what failed
		// Began is that a Busy one has ended all the same: another run has to follow.
		Began bool
		Text  string // the service's result, if it is not an exit status
		Last  string // what it wrote at last, if it failed
	}
	// Observed has the units that are not well, and a result of every check that is
	// not off.
	Observed struct {
		Units  []Unit
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
		Link, Path string // what the profile was before SetProfile
		Drifted    bool
		Err        string
	}
	// Protected is the end of Protect.
	Protected struct{ Err string }
	// Hooked is the end of RunHook.
	Hooked struct{ Err string }
	// StillUp is that Reboot did not end this boot.
	StillUp struct{ Err string }
)

// A Unit is one of systemd's that has failed, or had a run that did.
type Unit struct {
	Name   string
	Failed bool // or waits to be started again after a run that ended badly
	// Crash names the last run that ended badly of a unit that systemd starts again
	// and again, if that was a moment ago: another name is another crash.
	Crash string

	Changed   bool // by the new system: its file, or a drop-in, is another
	Oneshot   bool // it does something and ends: Type=oneshot, and what a timer starts
	Triggered bool // by a timer, a path or a socket
}

// ProbeOutcome is how `narwharf agent probe` ended.
type ProbeOutcome string

// The outcomes.
const (
	ProbeOK          ProbeOutcome = "ok"          // the server took the report
	ProbeRefused     ProbeOutcome = "refused"     // it answered, and did not take it
	ProbeUnreachable ProbeOutcome = "unreachable" // no answer, or from a broken proxy
	ProbeBroken      ProbeOutcome = "broken"      // the new agent does not run, or its configuration is wrong
)

// Exit codes of switch-to-configuration; see docs/agent.md.
const (
	ExitFine        = 0
	ExitActivation  = 2  // the activation script failed
	ExitUnitsFailed = 4  // the system is switched: probation decides
	ExitLocked      = 11 // the errno of a lock that somebody else holds, or of another that died
	ExitReboot      = 100
)

func (ev Switched) ended() bool { return !ev.Lost && ev.Text == "" }

// Exited tells whether the run ended by itself with a code.
func (ev Switched) Exited(code int) bool { return ev.ended() && ev.Exit == code }

// SwitchedTo tells whether it switched to the system, whatever its units did.
func (ev Switched) SwitchedTo() bool { return ev.Exited(ExitFine) || ev.Exited(ExitUnitsFailed) }

// Code is the exit code, nil if the run did not end by itself.
func (ev Switched) Code() *int {
	if !ev.ended() {
		return nil
	}
	return &ev.Exit
}

// String says how the run ended.
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
