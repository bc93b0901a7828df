package rollout

import (
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout/policy"
)

// Summary is a roll-out for its readers: at most 16 KiB as JSON, however many hosts it
// has. Numbers are of the moment; those of a roll-out that is not its channel's any
// more are not known, and 0.
type Summary struct {
	Channel  string    `json:"channel"`
	Seq      int64     `json:"seq"`
	Rev      int64     `json:"rev"` // grows with each decision about it: what a verb's If-Match names
	State    State     `json:"state"`
	Why      string    `json:"why,omitempty"`
	Rollback bool      `json:"rollback,omitempty"`
	Now      bool      `json:"now,omitempty"`   // past waves, bakes, requires, after and quarantine
	Force    bool      `json:"force,omitempty"` // past quarantine
	Created  time.Time `json:"created"`
	Ended    time.Time `json:"ended,omitzero"`
	Present  bool      `json:"present"` // it is its channel's

	Queued   int64 `json:"queued,omitempty"`    // release that comes after it
	LastWell int64 `json:"last_well,omitempty"` // the last release that completed well: where a rollback goes

	// Hosts that have to change, or had to: all of them, and what became of them. The rest
	// of Total waits for its turn, or for a reason of its own.
	Total    int `json:"total"`
	Well     int `json:"well"`
	InFlight int `json:"in_flight"`
	Armed    int `json:"armed,omitempty"` // wait for a reboot
	Bad      int `json:"bad"`
	Back     int `json:"back,omitempty"` // left the release, or are on their way
	Left     int `json:"left,omitempty"` // were to leave it and did not
	Offline  int `json:"offline,omitempty"`

	Waves  []WaveSummary        `json:"waves"`
	Waits  map[api.WaitKind]int `json:"waits,omitempty"` // why hosts wait
	Faults []HostLine           `json:"faults,omitempty"`
	Flight []HostLine           `json:"flight,omitempty"`
	More   bool                 `json:"more,omitempty"` // of Faults or Flight there are more

	Policy *policy.Rollout `json:"policy,omitempty"`
}

// WaveSummary is a wave, opened or not.
type WaveSummary struct {
	Name  string    `json:"name"`
	State WaveState `json:"state"`
	Size  int       `json:"size"` // hosts, fixed when it opened
	Well  int       `json:"well"`
	Bad   int       `json:"bad"`
	Open  int       `json:"open"`  // to be granted, or on their way
	Aside int       `json:"aside"` // not counted: offline, held and so on

	Opened  time.Time `json:"opened,omitzero"`
	Bakes   time.Time `json:"bakes_until,omitzero"` // once enough hosts are well
	Passed  time.Time `json:"passed,omitzero"`
	Approve bool      `json:"approve,omitempty"` // somebody has to say advance
	// Approved and Skipped are who did, and why.
	Approved string           `json:"approved,omitempty"`
	Skipped  string           `json:"skipped,omitempty"`
	Checks   map[string]Check `json:"checks,omitempty"`
}

// WaveState is where a wave is.
type WaveState string

// The states of a wave.
const (
	WaveAhead    WaveState = "ahead"
	WaveOpen     WaveState = "open"
	WaveBaking   WaveState = "baking"
	WaveApproval WaveState = "approval" // it waits for somebody's yes
	WavePassed   WaveState = "passed"
	WaveSkipped  WaveState = "skipped"
)

// HostLine is a host in a list.
type HostLine struct {
	Host  string `json:"host"`
	Wave  int    `json:"wave,omitempty"`
	Phase string `json:"phase,omitempty"`
	Fault Fault  `json:"fault,omitempty"`
	Text  string `json:"text,omitempty"`
}

// Wanted is what a bake wants to be asked.
type Wanted struct {
	Channel string
	Seq     int64
	Wave    int // from 1
	Names   []string
	Since   time.Time // when the bake began
	Paths   []string  // the release's systems
}

// Cell is a host in a picture of its channel's roll-out.
type Cell struct {
	Host  string
	Wave  int // from 1; 0: it is in none yet
	State CellState
}

// CellState is what a host is in such a picture: its letter.
type CellState byte

// The states.
const (
	CellWell    CellState = 'w' // it runs the release
	CellBad     CellState = 'b' // it ended badly
	CellFlight  CellState = 'f' // it is granted, or at work
	CellArmed   CellState = 'a' // it waits for a reboot
	CellBack    CellState = 'r' // it leaves the release, or has left it
	CellWaiting CellState = 'q'
	CellOffline CellState = 'o'
	CellAside   CellState = 'h' // held, paused, drifted, not in the release
	CellSame    CellState = 'u' // it need not change
)
