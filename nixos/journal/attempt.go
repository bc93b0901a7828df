package journal

import (
	"cmp"
	"slices"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/signing"
)

// An Attempt is the carrying out of one entry. Times are milliseconds on the
// boot's clock, so they mean something together with BootID alone. Its groups
// are embedded: in the file all their fields stand side by side.
type Attempt struct {
	ID      string         `json:"id"`
	Nonce   string         `json:"nonce"` // what the new system's agent confirms with
	Seq     int64          `json:"seq"`
	Entry   string         `json:"entry"` // sha256: of the entry's bytes
	Path    string         `json:"path"`
	Closure signing.Digest `json:"closure"`
	System  string         `json:"system"`
	Action  signing.Action `json:"action"`
	Expire  int64          `json:"expires,omitempty"` // Unix seconds; 0: never
	Last    bool           `json:"last,omitempty"`    // the system may be without an agent

	Phase   Phase     `json:"phase"`
	Exact   Phase     `json:"exact_phase,omitempty"` // in the file alone; see nearest
	Outcome api.State `json:"outcome,omitempty"`     // with Done
	BootID  string    `json:"boot_id"`
	Began   int64     `json:"began_ms"`

	Staging
	Draining
	Hooks
	Activation
	Probation
	Commit
	Revert

	After api.State `json:"after,omitempty"` // with PostSwitch: the state that comes after it
	Note  string    `json:"note,omitempty"`  // what did not work, and does not change the outcome

	Record
}

// Staging is how the closure comes into the store, and when something is tried
// again.
type Staging struct {
	Imported []narinfo.Path `json:"imported,omitempty"` // were not valid before it
	Tries    int            `json:"tries,omitempty"`
	RetryAt  int64          `json:"retry_at_ms,omitempty"`
	Staged   bool           `json:"staged,omitempty"`
	Asked    bool           `json:"asked,omitempty"` // the server, since it is staged, or armed
	Jittered bool           `json:"jittered,omitempty"`
	Differs  []string       `json:"differs,omitempty"`
	Fetched  int64          `json:"fetched_bytes,omitempty"`
}

// Draining is what the host was like right before the switch.
type Draining struct {
	Previous  string   `json:"previous,omitempty"`   // where a revert leads
	Baseline  []string `json:"baseline,omitempty"`   // units that had failed already
	Reachable bool     `json:"reachable,omitempty"`  // the server was
	RebootFor []string `json:"reboot_for,omitempty"` // why a live switch is not enough
	ByBoot    bool     `json:"by_boot,omitempty"`    // no live switch: the next boot starts it
	// Specialisation is the one of the system that is switched to, "" if it is the system
	// itself. It is not what boots.
	Specialisation string `json:"specialisation,omitempty"`
}

// Hooks counts what the commands of the configuration came to.
type Hooks struct {
	PostOwed  bool `json:"owed,omitempty"` // hooks.post_switch is to be run, since something was drained
	HookTries int  `json:"hook_tries,omitempty"`
	PostTries int  `json:"post_tries,omitempty"`
}

// Activation has the runs of switch-to-configuration. Run counts them, the
// current one included.
type Activation struct {
	Run        int    `json:"run,omitempty"`
	RunAction  string `json:"run_action,omitempty"`
	Activated  bool   `json:"activated,omitempty"` // a live switch was begun, ever
	SwitchExit *int   `json:"switch_exit,omitempty"`
}

// Probation is the trial of the new system.
type Probation struct {
	ProbationAt int64 `json:"probation_at_ms,omitempty"`
	LookedAt    int64 `json:"looked_at_ms,omitempty"` // the last time; its clocks stop where nobody can look
	Slept       int64 `json:"slept_ms,omitempty"`     // effect.Facts.Slept by then
	Rebooted    bool  `json:"rebooted,omitempty"`     // probation is of a fresh boot
	Boots       int   `json:"boots,omitempty"`
	Findings
}

// Findings are what was found out about the new system. They are empty when its
// probation begins.
type Findings struct {
	Failing     map[string]int64 `json:"failing,omitempty"` // since when, by what fails
	Crashes     map[string]Crash `json:"crashes,omitempty"` // by unit
	NewFailed   []string         `json:"new_failed,omitempty"`
	Checks      []api.Check      `json:"checks,omitempty"`
	Answered    bool             `json:"answered,omitempty"` // one whole round of checks came back
	AwayAt      int64            `json:"away_at_ms,omitempty"`
	AwayFor     string           `json:"away_for,omitempty"`
	Confirm     string           `json:"confirm,omitempty"`
	ConfirmedBy string           `json:"confirmed_by,omitempty"`
	Unconfirmed bool             `json:"unconfirmed,omitempty"`
}

// A Crash is what is known of a unit's runs that ended badly and had another after
// them.
type Crash struct {
	Last  string `json:"last"`               // run; it may be of before the probation
	First int64  `json:"first_ms,omitempty"` // when the first of the probation was seen; 0: none was
	At    int64  `json:"at_ms,omitempty"`    // and the last
}

// Commit is the profile's state before it, and its own.
type Commit struct {
	ProfileLink    string `json:"profile_link,omitempty"` // the generation before, as "system-41-link"
	ProfilePath    string `json:"profile_path,omitempty"` // the system of that generation
	ProfileTouched bool   `json:"profile_touched,omitempty"`
	CommitAt       int64  `json:"commit_at_ms,omitempty"`
	Resumed        bool   `json:"resumed,omitempty"` // the host was booted while it was committed
}

// Revert is why and how the host goes back.
type Revert struct {
	BootLost    bool   `json:"boot_lost,omitempty"`     // the old system's boot entry could not be written
	LostRuns    int    `json:"lost,omitempty"`          // runs without a result, of those that may be repeated
	BackTries   int    `json:"back_tries,omitempty"`    // of the present part of the way back that failed
	BackAt      int64  `json:"back_at_ms,omitempty"`    // when the first of them did
	Reason      string `json:"reason,omitempty"`        // of the revert, or the failure
	ByDirective bool   `json:"leaving,omitempty"`       // it was well, and the server asked for the revert
	TestUntil   int64  `json:"test_until_ms,omitempty"` // when a test is over; 0: only with a boot
	TestEnds    bool   `json:"test_ends,omitempty"`     // its time is over: the way back is no failure
	DriftAt     int64  `json:"drift_at_ms,omitempty"`   // since when the host is drifted, with drift.action = "return"
}

// Record is for reports and logs.
type Record struct {
	Durations   map[string]int64 `json:"durations_ms,omitempty"`
	Transitions []api.Transition `json:"transitions,omitempty"` // the last MaxTransitions
	Forgotten   int              `json:"forgotten,omitempty"`   // how many there were before these
	Runs        []Run            `json:"runs,omitempty"`        // of switch-to-configuration, the last 8
	LogPosted   bool             `json:"log_posted,omitempty"`
}

// MaxTransitions bounds what a host that nobody hears remembers.
const MaxTransitions = 256

// A Run is one execution of switch-to-configuration.
type Run struct {
	ID     string `json:"id"`     // unique for ever
	Path   string `json:"path"`   // of the system whose script it is
	Action string `json:"action"` // test, boot, dry-activate, check
}

// Switched is what a live switch leads to: the system, or its specialisation.
func (a *Attempt) Switched() string {
	if a.Specialisation == "" {
		return a.Path
	}
	return a.Path + "/specialisation/" + a.Specialisation
}

// NoteTransition records that people see another state.
func (a *Attempt) NoteTransition(s api.State, now int64) {
	a.Transitions = append(a.Transitions, api.Transition{State: s, After: max(now-a.Began, 0)})
	over := max(len(a.Transitions)-MaxTransitions, 0)
	a.Transitions = a.Transitions[over:]
	a.Forgotten += over
}

// TooEarly tells whether the time of the next try has not come on this boot.
func (a *Attempt) TooEarly(now int64, bootID string) bool {
	return now < a.RetryAt && a.BootID == bootID
}

// Set is the lists as one of a journal's: in order and without doubles.
func Set[T cmp.Ordered](lists ...[]T) []T {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return slices.Compact(all)
}
