// Package effect is what the machine asks of the world, and what comes back: an
// Effect is something to be done, its Event is what it came to, and Facts are
// what the host is like at that moment.
//
// Every effect can be begun again after a crash. One that fails is an event like
// any other, with words in its Err.
package effect

import (
	"time"

	"narwharf/narinfo"
	"narwharf/nixos/journal"
	"narwharf/signing"
)

// An Effect is something to be done outside the machine, one of these types. Each can be
// begun again after a crash.
type Effect any

// The effects.
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
		Last     bool // the system may be without an agent
	}
	// Inspect looks at the host and protects the running system.
	// Specialisation is of it, where a live switch is to lead to one.
	Inspect struct{ Path, Specialisation string }
	// Announce reports, and waits for the answer.
	Announce struct{}
	// AskOwn is the same, where it counts how it is refused.
	AskOwn struct{}
	// Switch starts the run unless it was started, and waits for its end.
	Switch struct {
		Run   journal.Run
		Delay time.Duration
	}
	// Observe looks at units and runs the checks, after a delay. From is the system
	// before.
	Observe struct {
		Path  string
		From  string
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
	ResetProfile struct {
		Link, Path, Bad string
		Delay           time.Duration
	}
	// Protect roots the confirmed system, and the one confirmed before it.
	Protect struct{ Path, Before string }
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

// A HookName is one of the commands that a configuration has for what comes
// around a switch.
type HookName string

// The hooks.
const (
	HookPreSwitch  HookName = "pre_switch"
	HookPostSwitch HookName = "post_switch"
	HookPreReboot  HookName = "pre_reboot"
)
