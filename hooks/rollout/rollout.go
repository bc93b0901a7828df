// Package rollout is what a roll-out consists of: the rows that are kept of it, what
// happens to it, and what comes of that. hooks/rollout/engine decides; a driver feeds
// it and stores what it returns; hooks/rollout/simulate plays both.
//
// # Rows
//
// All rows are JSON and have a version. A host has one, whatever becomes of it; a
// roll-out has one; a channel has one. What can be counted from rows and from what
// hosts last reported is counted, and stands in no row.
//
// Times are the server's. A row never says what a host is: that is the host's own
// last report (Level). It says what was decided about it.
package rollout

import (
	"fmt"
	"time"

	"narwharf/hooks/rollout/policy"
)

// Version is that of all rows. A reader refuses rows that are newer.
const Version = 1

// Lease is for how long a host may use a grant, from when it was given.
const Lease = 15 * time.Minute

// Grace is how much longer a grant counts that was not used or was taken back: what a
// host was told last may end as much later.
const Grace = time.Minute

// State is where a roll-out is.
type State string

// The states. Paused, Halted and Aborting give nobody a grant.
const (
	Planned    State = "planned" // its first wave is not open yet: a freeze, or a closed window
	Queued     State = "queued"
	Running    State = "running"
	Paused     State = "paused"
	Halted     State = "halted"
	Aborting   State = "aborting"
	Aborted    State = "aborted"
	Superseded State = "superseded"
	Completed  State = "completed"
)

// Over tells whether nothing leads out of a state but a late host or a new release.
func (s State) Over() bool { return s == Aborted || s == Superseded || s == Completed }

// Phase is what was decided about a host, and what came of it.
type Phase uint8

// The phases.
const (
	Untouched Phase = iota
	Granted         // it may begin, and has not said that it did
	Withdrawn       // it may not any more, and may have begun before it heard of that
	Begun           // it has said so, and not how it ended
	Armed           // it waits for a reboot that the server permits
	Well
	Bad       // Fault says how
	Reverting // asked to leave the release
	Back      // it did
	Left      // it was not asked, or could not: a person's turn
)

var phases = []string{"", "granted", "withdrawn", "begun", "armed", "well", "bad", "reverting", "back", "left"}

// String is its name, "" for Untouched.
func (p Phase) String() string { return phases[p] }

// InFlight tells whether a host holds a place of max_concurrency.
func (p Phase) InFlight() bool {
	return p == Granted || p == Withdrawn || p == Begun || p == Reverting
}

// MarshalText implements encoding.TextMarshaler.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Phase) UnmarshalText(text []byte) error {
	for i, name := range phases {
		if name == string(text) {
			*p = Phase(i)
			return nil
		}
	}
	return fmt.Errorf("phase %q is not known: is the row of a newer narwharf?", text)
}

// Fault is how a host ended that is an error of the roll-out.
type Fault string

// The faults.
const (
	Reverted Fault = "reverted" // by itself
	Failed   Fault = "failed"
	Rejected Fault = "rejected"
	TimedOut Fault = "timed_out" // no end in attempt_timeout; it keeps its place
	Lost     Fault = "lost"      // it began, and knows nothing of it any more
)

// Host is the row of a host.
type Host struct {
	V       int    `json:"v"`
	Name    string `json:"host"`
	Channel string `json:"channel"`
	// Seq is the release that the fields below are about, until Wave.
	Seq   int64     `json:"seq,omitempty"`
	Phase Phase     `json:"phase,omitempty"`
	At    time.Time `json:"at,omitzero"`    // of the grant or the directive
	Until time.Time `json:"until,omitzero"` // of the grant; of a host that is well, until when it is told of it
	Fault Fault     `json:"fault,omitempty"`
	// Forgiven is that somebody said resume in spite of the fault.
	Forgiven bool `json:"forgiven,omitempty"`
	// Before is the system that the host had confirmed when it was granted.
	Before string `json:"before,omitempty"`
	// Over is an attempt that has ended badly, or was left: what is said of it is no news.
	Over string `json:"over,omitempty"`
	// Retry is that the next grant comes with the directive to try again.
	Retry bool `json:"retry,omitempty"`

	// Wave is the host's of the roll-out WaveOf, from 1.
	Wave   int32 `json:"wave,omitempty"`
	WaveOf int64 `json:"wave_of,omitempty"`
	Turn   int32 `json:"turn,omitempty"` // how often it went to the end of the line

	Grants int32 `json:"grants,omitempty"` // ever, of directives too: their ids are made of it
	// Denied are the systems that directives made it leave, the last one last; at most MaxDenied.
	Denied []string `json:"denied,omitempty"`
}

// GrantID is the ID of the grant that the row is of. No other has it.
func (h *Host) GrantID() string { return fmt.Sprintf("%s-%d-%d", h.Channel, h.Seq, h.Grants) }

// MaxDenied bounds Host.Denied.
const MaxDenied = 8

// Rollout is the row of a roll-out.
type Rollout struct {
	V        int             `json:"v"`
	Channel  string          `json:"channel"`
	Seq      int64           `json:"seq"`
	State    State           `json:"state"`
	Why      string          `json:"why,omitempty"`
	Policy   *policy.Rollout `json:"policy"`
	Rollback bool            `json:"rollback,omitempty"`
	Now      bool            `json:"now,omitempty"` // promote --now
	Force    bool            `json:"force,omitempty"`
	Created  time.Time       `json:"created"`
	Ended    time.Time       `json:"ended,omitzero"`
	// Revert is which touched hosts are to leave the release: none, or as below.
	Revert string `json:"revert,omitempty"`
	// Waves are those that were opened; the last is the current one.
	Waves []Wave `json:"waves,omitempty"`
	Rev   int64  `json:"rev"` // grows with each change of the row
}

// Which touched hosts are to leave a release.
const (
	RevertWave = "wave" // those of the current wave
	RevertAll  = "all"
)

// Wave is what became of a wave.
type Wave struct {
	Opened time.Time `json:"opened"`
	Size   int       `json:"size"`
	// Spent is for how long it could work until Since, which is zero while it cannot.
	Spent time.Duration `json:"spent,omitempty"`
	Since time.Time     `json:"since,omitzero"`
	// Met is when enough hosts were well: the bake begins.
	Met      time.Time        `json:"met,omitzero"`
	Checks   map[string]Check `json:"checks,omitempty"` // of this bake
	Approved string           `json:"approved,omitempty"`
	Skipped  string           `json:"skipped,omitempty"`
	Passed   time.Time        `json:"passed,omitzero"`
}

// Check is the last answer of a check in a bake.
type Check struct {
	OK     bool          `json:"ok"`
	At     time.Time     `json:"at"`
	Detail string        `json:"detail,omitempty"` // also why it gave none since
	Stands time.Duration `json:"stands,omitempty"` // from At; 0: through the bake
	None   bool          `json:"none,omitempty"`   // it has given no answer yet
}

// Answered tells whether a check's answer stands at a time.
func (c *Check) Answered(at time.Time) bool {
	return !c.None && !c.At.IsZero() && (c.Stands == 0 || !at.After(c.At.Add(c.Stands)))
}

// Unanswered is the first of some checks of which no answer stands at a time, "" if
// there is none, and what is known of why.
func (w *Wave) Unanswered(names []string, at time.Time) (name, detail string) {
	for _, name := range names {
		if c := w.Checks[name]; !c.Answered(at) {
			return name, c.Detail
		}
	}
	return "", ""
}

// Channel is the row of a channel.
type Channel struct {
	V    int    `json:"v"`
	Name string `json:"channel"`
	Seq  int64  `json:"seq,omitempty"` // of its roll-out
	// Queued is the release that begins when this one is over.
	Queued *Promote `json:"queued,omitempty"`
	// Done are releases that completed, the newest last; at most MaxDone.
	Done []Done `json:"done,omitempty"`
}

// MaxDone bounds Channel.Done.
const MaxDone = 10

// Done is a release that completed.
type Done struct {
	Seq  int64     `json:"seq"`
	At   time.Time `json:"at"`
	Well bool      `json:"well"` // errors were no more than max_errors, and some host runs it
}

// Newest is the newest release that completed, 0 if none did.
func (c *Channel) Newest() int64 {
	if len(c.Done) == 0 {
		return 0
	}
	return c.Done[len(c.Done)-1].Seq
}

// LastWell is the last that completed well, 0 if none did: where a rollback goes.
func (c *Channel) LastWell() int64 {
	for i := len(c.Done) - 1; i >= 0; i-- {
		if c.Done[i].Well {
			return c.Done[i].Seq
		}
	}
	return 0
}

// Quarantine is a system that is given to nobody.
type Quarantine struct {
	V       int       `json:"v"`
	Path    string    `json:"store_path"`
	Closure string    `json:"closure"`
	Channel string    `json:"channel"`
	Seq     int64     `json:"seq"`
	Hosts   int       `json:"hosts"` // that went back from it by themselves
	At      time.Time `json:"at"`
	Cleared bool      `json:"-"` // the row is to go
}

// Key is the key of its row.
func (q *Quarantine) Key() string { return q.Path + " " + q.Closure }
