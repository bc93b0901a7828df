// Package desired is what the server's desired document means for this host.
//
// All of it is decisions, and pure: each depends on the host's own rules, the
// journal and the host's facts, and changes nothing. Judge says whether a release
// is to be taken. Admit says what a staged system waits for, AdmitReboot what an
// armed host does. OrderOf says what a directive comes to.
//
// The server's word can delay and hold. It permits a reboot where the host's
// configuration leaves that to it, and asks for a retry, or for the way back to
// what the host itself has found well, as often as that lets it. It cannot make a host run what no
// promoter signed.
package desired

import (
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/window"
	"narwharf/signing"
)

// Rules are the parts of the host's own configuration that decide on what the
// server says.
type Rules struct {
	Trust signing.Trust
	// KeysVersion says which statement about the channel's keys Trust's are of, and Recovery are
	// the keys of which one revokes others.
	KeysVersion int64
	Recovery    []signing.PublicKey
	Fresh       time.Duration // a release older than this is an alarm; 0: none is
	System      string        // "x86_64-linux"
	StoreDir    string
	MinSeq      int64
	Agent       string          // this agent's version
	Reboot      RebootAllow     // for a release
	Windows     window.Schedule // for reboots; none is always

	Directives Obey // whether the server's directives are obeyed, which nobody signs
	Retries    int  // how often a release is tried again by one

	Minimum        time.Duration // probation lasts at least so long
	ConfirmTimeout time.Duration // and waits so long for a server that is away
}

// Channel is under which Journal.Seen has what this host follows.
func (r *Rules) Channel() string { return r.Trust.Origin + " " + r.Trust.Channel }

// Limits of a probation: the server may make them longer, up to an hour, and not
// shorter.
func (r *Rules) Limits(d *api.Desired) (minimum, confirm time.Duration) {
	minimum, confirm = r.Minimum, r.ConfirmTimeout
	if d != nil {
		bounded := func(s int64) time.Duration { return time.Duration(min(max(s, 0), 3600)) * time.Second }
		minimum = max(minimum, bounded(d.Policy.ProbationMin))
		confirm = max(confirm, bounded(d.Policy.ConfirmTimeout))
	}
	return minimum, confirm
}

// Obey says whether a host does what the server asks of it without a release.
type Obey string

// Whether it does.
const (
	ObeyLimited Obey = "limited"
	ObeyNever   Obey = "never"
)

// RebootAllow says who may reboot the host for a release.
type RebootAllow string

// Who may.
const (
	RebootServer RebootAllow = "server" // the server's permission is needed
	RebootAlways RebootAllow = "always" // at once, within the windows
	RebootNever  RebootAllow = "never"  // people alone
)
