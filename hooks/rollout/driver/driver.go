// Package driver drives roll-outs: it tells hooks/rollout/engine what happens, stores
// what that decides, and says what hosts are to be told.
//
// # What it promises
//
//   - A step is one transaction: the rows that the engine returned, the lines of the
//     audit log, and for what people do (a promote, a policy, a budget) what they
//     changed. What hosts are told is what was stored, and nobody is woken before.
//   - If a transaction fails the engine is loaded anew from the rows. A server that is
//     killed anywhere goes on from there.
//   - Of several servers of a state one drives. Each step reads in its transaction that
//     the lease is still its own. Who is told something by a person takes
//     the lease over at once; else one that was silent for 8 seconds loses it.
//   - A channel whose policy has no "rollout" is not governed: it has no rows, and
//     its hosts are not the driver's.
//
// Hosts' reports are stored by hooks/desired; a step reads those that are new. Reports
// are levels: one that is read late, or twice, does no harm.
//
// Whether a host is heard of is in memory (hooks/host/presence), looked at every ten
// seconds. Nobody is offline before offline_after has passed since the driver began.
package driver

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/channel"
	"narwharf/hooks/host"
	"narwharf/hooks/policy"
	"narwharf/hooks/reboot"
	"narwharf/hooks/rollout/engine"
	"narwharf/hooks/rollout/lease"
	"narwharf/hooks/rollout/release"
	"narwharf/hooks/rollout/rows"
	"narwharf/hooks/timers"
)

// Options of New.
type Options struct {
	Set      *mirror.Set
	Channels *channel.Channels
	Policies *policy.Policies
	Hosts    *host.Hosts
	Slots    *reboot.Slots
	Timers   *timers.Set
	Wake     func(topics ...string) // polls of this server
	Log      *slog.Logger
	Clock    func() time.Time
	Name     string // of this server, for people
	// Shared is that other servers may have the state, too.
	Shared bool
}

// Driver drives the roll-outs of a state.
type Driver struct {
	o     Options
	rows  *rows.Rows
	began time.Time

	notices notices
	pub     published
	lease   *lease.Lease
	heard   atomic.Int64 // what is told was so then, in Unix nanoseconds, or later

	mu       sync.RWMutex // held for a step, with its transaction
	e        *engine.Engine
	governed map[string]*governed
	releases *release.Releases
	pending  *pending  // that is about to be promoted
	failed   error     // why a release could not be read in this step
	swept    time.Time // when presence was looked at last
	loaded   time.Time
	due      time.Time // when the engine wants to be called; zero: never
	stats    State
}

// governed is a channel with a rollout policy.
type governed struct {
	policy *policy.Policy
	open   bool
	next   time.Time // when its windows open or close; zero: never
}

// State is how the driver is.
type State struct {
	Leads bool      `json:"leads"`
	Epoch int64     `json:"epoch,omitempty"`
	Since time.Time `json:"since,omitzero"` // of the lease
	Steps uint64    `json:"steps"`
	Last  time.Time `json:"last,omitzero"` // step that changed something
	Err   string    `json:"error,omitempty"`
}

// New opens the roll-outs in the state of a set, and goes on with them.
func New(o Options) (d *Driver, err error) {
	d = &Driver{o: o, began: o.Clock(), governed: make(map[string]*governed), releases: release.New(o.Channels), lease: lease.New(o.Set, o.Name, o.Shared)}
	if d.rows, err = rows.Open(o.Set); err != nil {
		return nil, err
	}
	d.notices.init()
	d.pub.init()
	return d, nil
}

// State tells how the driver is.
func (d *Driver) State() State {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.stats
}

// Begin goes on with the roll-outs that there are. It is to be told of all notices from
// then on.
func (d *Driver) Begin() { d.work() }
