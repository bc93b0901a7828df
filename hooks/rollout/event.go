package rollout

import (
	"maps"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout/policy"
)

// Level is what is known of a host from its last report, and from people. It is told
// whole and again whenever something of it is new; what lay between two of them may
// never be told.
type Level struct {
	Host    string
	Channel string // that it reported last
	Target  string
	Labels  map[string]string

	State      api.State
	Seq        int64 // that the state is about
	Attempt    string
	HighestSeq int64 // accepted ever
	Current    string
	Profile    string
	Confirmed  string       // the last system that it committed
	Waiting    api.WaitKind // that it waits for, "" for nothing
	At         time.Time    // when the report came

	Held    bool // by a hold of its own
	Paused  bool // on the host
	TooOld  bool // its agent, for the channel's min_agent
	Refuses bool // directives
	// DeniesBytes is an agent that denies the bytes of an entry that it was told to
	// leave, and not only that release.
	DeniesBytes bool
	Slot        bool // it holds a reboot slot
	// LetGo is the ID of the last grant that it had and has not any more, without having begun by it.
	LetGo string
	// Asked is that it is reverted because somebody asked it to leave Seq, and not by itself.
	Asked bool
}

// Same tells whether another level says nothing new. When it was said is not looked at.
func (l *Level) Same(o *Level) bool {
	return l.Host == o.Host && l.Channel == o.Channel && l.Target == o.Target && l.State == o.State && l.Seq == o.Seq &&
		l.Attempt == o.Attempt && l.HighestSeq == o.HighestSeq && l.Current == o.Current && l.Profile == o.Profile &&
		l.Confirmed == o.Confirmed && l.Waiting == o.Waiting && l.Held == o.Held && l.Paused == o.Paused &&
		l.TooOld == o.TooOld && l.Refuses == o.Refuses && l.DeniesBytes == o.DeniesBytes && l.Slot == o.Slot && l.Asked == o.Asked && l.LetGo == o.LetGo &&
		maps.Equal(l.Labels, o.Labels)
}

// Entry is what a release has for a target.
type Entry struct{ Path, Closure, Action string }

// Key tells its system from all others: the path with its bytes.
func (e *Entry) Key() string { return e.Path + " " + e.Closure }

// Release is what the engine needs of one. It never changes.
type Release struct {
	Seq     int64
	Rev     string // the signed meta.rev
	Entries map[string]*Entry
}

// Entry is that of a target, nil if there is none.
func (r *Release) Entry(target string) *Entry {
	if e := r.Entries["*"]; e != nil {
		return e
	}
	return r.Entries[target]
}

// Releases finds a release; nil if it is not known any more. It answers from memory.
type Releases func(channel string, seq int64) *Release

// Event is something that happens. It is one of the types below.
type Event interface{ event() }

// Report is what is new about a host, also that it has been heard of now.
type Report struct{ Level *Level }

// Seen is that a host is heard of (Away is zero), or since when it is not.
type Seen struct {
	Host string
	Away time.Time
}

// Gone is that a host was removed.
type Gone struct{ Host string }

// Promote is a new release of a channel.
type Promote struct {
	Channel  string `json:"channel"`
	Seq      int64  `json:"seq"`
	Rollback bool   `json:"rollback,omitempty"`
	// Now goes past waves, bakes, requires, after and quarantine.
	Now   bool `json:"now,omitempty"`
	Force bool `json:"force,omitempty"` // past quarantine
	// Everyone is that it was promoted while the channel had no rules: its roll-out has
	// completed, and late hosts take it one by one.
	Everyone bool   `json:"-"`
	Reason   string `json:"reason,omitempty"` // of Now
	By       string `json:"by,omitempty"`
}

// PolicySet is the policy of a channel, nil for everyone at once: such a channel has
// no roll-outs.
type PolicySet struct {
	Channel string
	Policy  *policy.Policy
	// Reboots is that the server permits reboots (reboot_slots, or the action reboot).
	Reboots bool
}

// Window is that the windows of a channel open or close. Without it they are open.
type Window struct {
	Channel string
	Open    bool
}

// Limits are the rules over all channels, as a whole.
type Limits struct {
	Budgets map[string]Budget
	Holds   map[string]Hold
	Freeze  *Hold // its selector is not looked at
}

// Budget bounds how many of some hosts may be unavailable at a time.
type Budget struct {
	Select         policy.Selector `json:"select"`
	MaxUnavailable policy.Amount   `json:"max_unavailable"`
}

// On tells whether a hold is on, which may end by itself.
func (h *Hold) On(now time.Time) bool { return h.Until.IsZero() || now.Before(h.Until) }

// Hold keeps some hosts where they are.
type Hold struct {
	Select policy.Selector `json:"select,omitzero"`
	Reason string          `json:"reason"`
	By     string          `json:"by,omitempty"`
	Until  time.Time       `json:"until,omitzero"` // zero: until it is taken away
}

// Verb is what an operator says of a roll-out.
type Verb struct {
	Channel string
	Seq     int64  // that is meant
	Rev     int64  // of the row that was looked at; 0: any
	Verb    string // Pause and so on
	Host    string // of retry: this one only
	By      string
	Reason  string
}

// The verbs.
const (
	Pause   = "pause"
	Resume  = "resume"
	Abort   = "abort"
	Retry   = "retry"
	Advance = "advance"
	Skip    = "skip"
)

// Checked is a check's answer.
type Checked struct {
	Channel string
	Seq     int64
	Wave    int // from 1
	Name    string
	Asked   time.Time // an answer to what was asked before the bake counts for nothing
	OK      bool
	Detail  string
	// Stands is for how long the answer counts; 0: through the bake. It has to be longer
	// than what passes from one answer to the next.
	Stands time.Duration
	// None is that the check gave no answer, of which Detail says why. An answer that it
	// gave before goes on standing.
	None bool
}

// Clear ends the quarantine of a system.
type Clear struct{ Path, By string }

// Tick is that time has passed.
type Tick struct{}

func (Report) event()    {}
func (Seen) event()      {}
func (Gone) event()      {}
func (Promote) event()   {}
func (PolicySet) event() {}
func (Window) event()    {}
func (Limits) event()    {}
func (Verb) event()      {}
func (Checked) event()   {}
func (Clear) event()     {}
func (Tick) event()      {}

// Changes are what comes of an event. The rows are copies of no one: they are to be
// stored before the next Step, in one transaction with whatever the event is read from;
// then hosts are woken. If that fails the engine is to be loaded anew.
type Changes struct {
	Hosts       []*Host
	Removed     []string // hosts whose rows go
	Rollouts    []*Rollout
	Channels    []*Channel
	Quarantines []*Quarantine
	Decisions   []Decision
	Wake        []string // hosts whose answer is another
	// Next is when time alone will change something; zero: never.
	Next time.Time
}

// Decision is a line of the log: what was decided, or found out.
type Decision struct {
	Kind    string // "granted", "withdrawn", "fault", "well", "revert", "wave", "passed", or a state
	Channel string
	Seq     int64
	Host    string
	Wave    int // from 1
	Text    string
	Alarm   bool
}

// Answer is what a host is to be told.
type Answer struct {
	Seq       int64 // the release that it is shown; 0: none
	Grant     string
	Lease     time.Duration
	Directive string // "retry" or "revert"
	ID        string // of the directive
	// Wait is why there is no grant. It stays the same through a wave; Engine.Why has
	// the reason of the moment.
	Wait api.WaitKind
}

// Refusal is why an event is not taken. Nothing has changed then.
type Refusal struct {
	Kind string // "not_proven", "quarantined", "in_progress", "conflict", "not_found"
	Text string
}

func (r *Refusal) Error() string { return r.Text }
