package machine

import (
	"time"

	"narwharf/hooks/window"
	"narwharf/signing"
)

// Rules are what a Machine goes by; the host's own configuration makes them.
type Rules struct {
	Trust    signing.Trust
	System   string // "x86_64-linux"
	StoreDir string
	Agent    string // this agent's version
	MinSeq   int64
	Auto     signing.Action // what the action auto means here; "" is auto

	Minimum        time.Duration // probation lasts at least so long
	Settle         time.Duration // and what fails may take so long to come up
	ConfirmTimeout time.Duration
	Interval       time.Duration // between two looks
	CheckTime      time.Duration // that one round of checks may take

	Hooks        map[HookName]bool // that are configured
	Reboot       RebootAllow
	Windows      window.Schedule // for reboots; none is always
	TestDeadline time.Duration   // after which a test is over; 0: only with a boot
	Jitter       time.Duration   // of downloads, at most
}

// channel is under which Journal.Seen has what this host follows.
func (r *Rules) channel() string { return r.Trust.Origin + " " + r.Trust.Channel }

// A HookName is one of the commands that a configuration has for what comes
// around a switch.
type HookName string

// The hooks.
const (
	HookPreSwitch  HookName = "pre_switch"
	HookPostSwitch HookName = "post_switch"
	HookPreReboot  HookName = "pre_reboot"
)

// RebootAllow says who may reboot the host for a release.
type RebootAllow string

// Who may.
const (
	RebootServer RebootAllow = "server" // the server's permission is needed
	RebootAlways RebootAllow = "always" // at once, within the windows
	RebootNever  RebootAllow = "never"  // people alone
)
