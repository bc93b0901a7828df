package api

import (
	"fmt"
	"time"

	"narwharf/signing"
)

// Desired is what a host shall do: the answer to GET /api/v1/hosts/{h}/desired?channel=C&target=T.
//
// Nothing in it but the pointer is signed. It may therefore delay a host, permit
// or ask for what its own configuration lets it, tighten that, and no more.
type Desired struct {
	Channel string `json:"channel"`
	Seq     int64  `json:"seq"`
	// Pointer is null if the channel has no release, or none for the target.
	Pointer *signing.Pointer `json:"pointer"`
	// Heads lead a host that was off for long to the pointer's: each is at most
	// signing.MaxSeqJump above the one before.
	Heads []*signing.Envelope `json:"heads,omitempty"`
	// Keys are statements about the channel's keys above the version that the host has, and
	// Revocations all there are (signing/keyring). They are signed, too.
	Keys        []*signing.Envelope `json:"keys,omitempty"`
	Revocations []*signing.Envelope `json:"revocations,omitempty"`
	// Grant allows the host to act on this seq now.
	Grant *Grant `json:"grant"`
	// Reboot permits a reboot now for this seq, to a host that needs one.
	Reboot *Grant `json:"reboot,omitempty"`
	// WaitingFor says why there is no grant or, to a host that asks to reboot,
	// why it may not.
	WaitingFor *Waiting   `json:"waiting_for"`
	Hold       *Hold      `json:"hold"`
	Directive  *Directive `json:"directive"`
	Policy     Policy     `json:"policy"`
	MinAgent   string     `json:"min_agent,omitempty"`
}

// Policy tightens what the host's configuration says; zero values do nothing.
type Policy struct {
	ConfirmTimeout int64 `json:"confirm_timeout_s,omitempty"`
	ProbationMin   int64 `json:"probation_min_s,omitempty"`
}

// Have is what a host knows of its channel: it is sent what leads on from there.
type Have struct {
	Seq  int64 // that it has accepted; below 0: its agent does not say
	Keys int64 // version of the channel's keys; below 0: its agent knows of none
	// Asked is when it asked, by the server's clock; zero: long ago.
	Asked time.Time
}

// Grant lets a host start on a seq. A lease is a duration on the clock of
// whoever counts it, never a time of day.
type Grant struct {
	Seq   int64  `json:"seq"`
	Lease int64  `json:"lease_s"`
	ID    string `json:"id"`
}

// WaitKind is why a host waits, from a closed list.
type WaitKind string

// The reasons.
const (
	WaitWave         WaitKind = "wave"
	WaitBake         WaitKind = "bake"
	WaitWindow       WaitKind = "window"
	WaitSlot         WaitKind = "slot"
	WaitBudget       WaitKind = "budget"
	WaitAfter        WaitKind = "after"
	WaitHold         WaitKind = "hold"
	WaitPaused       WaitKind = "paused"
	WaitOffline      WaitKind = "offline"
	WaitInhibited    WaitKind = "inhibited"
	WaitQuarantine   WaitKind = "quarantine"
	WaitNotInRelease WaitKind = "not_in_release"
	WaitRetry        WaitKind = "retry"   // the entry failed here before
	WaitReboot       WaitKind = "reboot"  // armed: somebody has to reboot
	WaitExpired      WaitKind = "expired" // the head's time is over
	WaitCheck        WaitKind = "check"   // of roll-outs, and the next two
	WaitApproval     WaitKind = "approval"
	WaitFreeze       WaitKind = "freeze"
)

// Waiting is a reason with words for people.
type Waiting struct {
	Kind   WaitKind `json:"kind"`
	Detail string   `json:"detail,omitempty"`
	// Asks is said by a host that would go on at once if the server permitted it.
	Asks bool `json:"asks,omitempty"`
}

// Text is the reason in one line for people.
func (w *Waiting) Text() string {
	if w.Detail == "" {
		return "waits: " + string(w.Kind)
	}
	return fmt.Sprintf("waits: %s (%s)", w.Kind, w.Detail)
}

// TimeText is a time for people, in their time zone. What a database that was
// lost had is unknown.
func TimeText(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.Local().Format(time.DateTime + " MST")
}

// Hold keeps a host where it is.
type Hold struct {
	Reason string     `json:"reason"`
	By     string     `json:"by"`
	Until  *time.Time `json:"until"`
}

// Directive asks a host for something that needs no new release.
type Directive struct {
	Type string `json:"type"` // "retry": try the entry again; "revert": leave seq
	Seq  int64  `json:"seq"`
	ID   string `json:"id"` // each is obeyed once
	// Serial orders the directives about a release to a host: it obeys none that
	// is not above the last that it obeyed, so that a server that was restored
	// does not ask twice. 0 is of a server that does not count; there the ID alone
	// decides.
	Serial int64 `json:"serial,omitempty"`
}

// Directives are what a host does with the server's, by its own configuration.
type Directives struct {
	Obey        string `json:"obey"`         // "limited" or "never"
	RetriesLeft int    `json:"retries_left"` // of HighestSeq
}

// MaxSerial is the highest number of a directive: all JSON readers can tell it
// from its neighbours.
const MaxSerial = 1<<53 - 1

// State is where a host's agent is. docs/agent.md has the diagram.
type State string

// The states.
const (
	Idle         State = "idle"
	Verifying    State = "verifying"
	Staging      State = "staging"
	Staged       State = "staged"
	WaitingState State = "waiting"
	Draining     State = "draining"
	Activating   State = "activating"
	Probation    State = "probation"
	Committing   State = "committing"
	OK           State = "ok"
	Armed        State = "armed"
	Testing      State = "testing"
	TestOver     State = "test_over"
	DryRunDone   State = "dry_run_done"
	Rejected     State = "rejected"
	StageFailed  State = "stage_failed"
	Reverting    State = "reverting"
	Reverted     State = "reverted"
	Failed       State = "failed"
	Drifted      State = "drifted"
	NotInRelease State = "not_in_release"
)

// States are all of them, in the order of a good attempt and then the ends.
var States = []State{Idle, Verifying, Staging, Staged, WaitingState, Draining, Activating, Probation, Committing, OK,
	Armed, Testing, TestOver, DryRunDone, Rejected, StageFailed, Reverting, Reverted, Failed, Drifted, NotInRelease}

// Final tells whether an attempt ends in the state, until something new comes.
func (s State) Final() bool {
	switch s {
	case OK, Armed, Testing, TestOver, DryRunDone, Rejected, Reverted, Failed, Drifted, NotInRelease:
		return true
	}
	return false
}

// Before tells whether a host in the state has not begun: nothing of it has changed.
func (s State) Before() bool {
	switch s {
	case Idle, Verifying, Staging, Staged, WaitingState, StageFailed:
		return true
	}
	return false
}

// Status is the body of PUT /api/v1/hosts/{h}/status: all that a host knows of
// itself. Reports are ordered by (StartID, Counter).
type Status struct {
	Channel string `json:"channel"` // first: whether it may be reported is known before the rest is read

	Agent   string `json:"agent"`    // version
	StartID int64  `json:"start_id"` // grows with every start of the agent
	Counter int64  `json:"counter"`  // grows with every report of one start
	// Instance and Machine tell machines apart that claim one host name.
	Instance string `json:"instance,omitempty"` // 32 hex digits, drawn at the agent's first start; "" from agents before it
	Machine  string `json:"machine,omitempty"`  // MachineID; "" if the host has no /etc/machine-id

	Target string `json:"target"`
	System string `json:"system,omitempty"`
	BootID string `json:"boot_id"`

	State   State  `json:"state"`
	Seq     int64  `json:"seq"`               // that the state is about; 0: none yet
	Attempt string `json:"attempt,omitempty"` // that the fields below are about
	Entry   string `json:"entry,omitempty"`   // sha256: of the entry's bytes
	Action  string `json:"action,omitempty"`
	Wanted  string `json:"wanted,omitempty"` // store path of the entry

	Current        string `json:"current"`                  // /run/current-system, or the system whose specialisation that is
	Specialisation string `json:"specialisation,omitempty"` // by name
	Booted         string `json:"booted"`                   // /run/booted-system
	Profile        string `json:"profile"`                  // what the system profile names
	Previous       string `json:"previous,omitempty"`       // current before the attempt
	Confirmed      string `json:"confirmed,omitempty"`      // last system that this host committed

	HighestSeq  int64 `json:"highest_seq"`            // accepted ever
	KeysVersion int64 `json:"keys_version,omitempty"` // of the channel's keys, as far as the host has followed them
	// Head is the head of HighestSeq, for a server that lost it.
	Head *signing.Pointer `json:"head,omitempty"`
	// DirectiveSerial is of the last directive about HighestSeq that the host
	// obeyed, for a server that lost it; 0: of none, or of one without a number.
	DirectiveSerial int64 `json:"directive_serial,omitempty"`
	// LetGo is, of a host that has not begun, the ID of the last grant that it had: an answer came
	// without it, and it does not begin by it unless it is given the same again. "" is none, or of an
	// agent that does not say.
	LetGo string `json:"let_go,omitempty"`
	// Directives says whether the host obeys them; nil from agents before that.
	Directives *Directives `json:"directives,omitempty"`

	NeedReboot    bool     `json:"need_reboot"`
	NeedRebootFor []string `json:"need_reboot_for,omitempty"` // what differs: kernel, initrd, …
	WaitingFor    *Waiting `json:"waiting_for,omitempty"`

	SwitchExit     *int     `json:"switch_exit,omitempty"` // of switch-to-configuration
	NewFailedUnits []string `json:"new_failed_units,omitempty"`
	Checks         []Check  `json:"checks,omitempty"`
	Confirm        string   `json:"confirm,omitempty"` // the attempt's nonce, from the new system's agent
	Unconfirmed    bool     `json:"unconfirmed,omitempty"`
	Differs        []string `json:"differs,omitempty"` // paths that were here with other bytes

	Durations   map[string]int64 `json:"durations_ms,omitempty"` // stage, activate, probation, commit, total
	Fetched     int64            `json:"fetched_bytes,omitempty"`
	Transitions []Transition     `json:"transitions,omitempty"` // since the last report that was acknowledged
	Error       string           `json:"error,omitempty"`
	Pause       *Hold            `json:"pause,omitempty"` // set by a person on the host

	CurrentGeneration int64 `json:"current_generation,omitempty"` // of the profile that Current is; 0 if none
	BootGeneration    int64 `json:"boot_generation,omitempty"`
	ConfigAge         int64 `json:"config_age_s,omitempty"` // since Current was activated
}

// CheckMode is what a failed check does.
type CheckMode string

// The modes.
const (
	Enforce CheckMode = "enforce"
	Observe CheckMode = "observe"
	Off     CheckMode = "off"
)

// Check is a health check's result in this attempt.
type Check struct {
	Name     string    `json:"name"`
	Mode     CheckMode `json:"mode"`
	OK       bool      `json:"ok"`
	Detail   string    `json:"detail,omitempty"`
	Duration int64     `json:"duration_ms"`
}

// Transition is one arrow of the state machine. After is on the host's
// monotonic clock, since the attempt began.
type Transition struct {
	State State `json:"state"`
	After int64 `json:"after_ms"`
}

// Host is a row of GET /api/v1/hosts.
type Host struct {
	Host     string            `json:"host"`
	LastSeen time.Time         `json:"last_seen"` // poll or report
	Online   bool              `json:"online"`    // a poll is parked, or ended just now
	Reported time.Time         `json:"reported,omitzero"`
	By       string            `json:"by,omitempty"` // credential of the last report
	Labels   map[string]string `json:"labels,omitempty"`
	Hold     *Hold             `json:"hold,omitempty"`
	// Wanted is what the channel's current release has for the host, "" if
	// nothing. Converged compares it with what the host declared.
	WantedSeq int64 `json:"wanted_seq"`
	// ShownSeq is the release that the host is shown, where roll-outs show it another.
	ShownSeq   int64    `json:"shown_seq,omitempty"`
	Wanted     string   `json:"wanted,omitempty"`
	Converged  bool     `json:"converged"`
	WaitingFor *Waiting `json:"waiting_for,omitempty"`
	Status     *Status  `json:"status,omitempty"`
	// Asked is that it is reverted because somebody asked, and not by itself.
	Asked bool `json:"asked,omitempty"`
	// Slot is the host's permission to reboot, which it holds until it has
	// reported the end, or has shown that it did not use it.
	Slot      *Slot      `json:"slot,omitempty"`
	Directive *Directive `json:"directive,omitempty"` // of the seq that it is shown; it may have been obeyed
	// Identity is the machine that has the name, Conflict those that claim it
	// and were refused.
	Identity *Identity `json:"identity,omitempty"`
	Conflict []Claim   `json:"conflict,omitempty"`
	Asks     []Ask     `json:"asks,omitempty"` // by SSH keys of which nobody has said whose they are
}

// Slot is one of the reboots that a group of hosts may have at a time.
type Slot struct {
	Group   string    `json:"group"`
	Seq     int64     `json:"seq"`
	Granted time.Time `json:"granted"`
	Overdue bool      `json:"late,omitempty"` // no end in reboot_timeout_s, and the host is not up as it was, or does not ask; there was an alarm
}
