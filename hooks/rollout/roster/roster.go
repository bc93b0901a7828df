// Package roster is hosts and channels with all that is counted of them, and the lines
// in which hosts wait. It decides nothing; hooks/rollout/engine does, by it.
//
// Everything that is counted follows from rows, from what hosts last reported, and from
// the time. Touch brings it up to date for one host in O(log n); after anything that
// concerns a whole channel TouchAll does, once over its hosts. So what is loaded from
// the rows counts the same as what came to be by steps.
package roster

import (
	"slices"
	"strings"
	"time"

	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/policy"
)

// Roster is all hosts and channels.
type Roster struct {
	Releases   rollout.Releases
	Seed       uint64
	Began      time.Time // nobody was heard of before
	Now        time.Time
	Channels   map[string]*Channel
	Order      []*Channel // by name
	Hosts      map[string]*Host
	Limits     rollout.Limits
	Quarantine map[string]*rollout.Quarantine
	Out        *rollout.Changes // of this step

	budgets    []*Budget // by name
	freed      bool      // there may be room in one
	timers     Heap
	dirtyHosts []*Host
	dirtyRuns  []*Run
}

// New makes a roster of nobody.
func New(releases rollout.Releases, seed uint64, began time.Time) *Roster {
	return &Roster{
		Releases: releases, Seed: seed, Began: began, Now: began, Out: new(rollout.Changes), timers: Heap{timer: true},
		Channels: make(map[string]*Channel), Hosts: make(map[string]*Host), Quarantine: make(map[string]*rollout.Quarantine),
	}
}

// Channel is one with its roll-out.
type Channel struct {
	Row     rollout.Channel
	Changed bool
	Policy  *policy.Policy
	Reboots bool // the server permits some
	Closed  bool // by its windows
	Run     *Run // nil if there was none
	Hosts   []*Host
	Classes []*Class // in the order in which they were made

	Flight int // hosts that hold a place
	Stuck  int // of these, offline or timed out: nobody waits for them in an abort
	Asked  int // of all, with a directive to leave

	Due  bool      // something is new
	Next time.Time // when time alone changes something

	byKey map[string]*Class
}

// Run is a roll-out with what is counted of it.
type Run struct {
	Row     *rollout.Rollout
	Release *rollout.Release

	Total    int // hosts that had to change, or have to
	Faults   int
	Waves    []Tally
	Pending  [][]int        // by rule of after and wave: hosts of first that are not well
	Failed   [][]int        // of these, the ones that ended badly
	Reverted map[string]int // by system: hosts that went back from it by themselves
	Suspects []string       // systems of which that number has grown

	dirty   bool // it is to be stored
	changed bool // and is another for its readers
}

// Tally counts hosts of a wave by category.
type Tally [categories]int

// Budget is one of the limits, counted.
type Budget struct {
	rollout.Budget
	name        string
	size, taken int
}

// Full tells whether no more of its hosts may become unavailable.
func (b *Budget) Full() bool { return b.taken >= b.MaxUnavailable.Down(b.size) }

// BudgetUse is how many hosts a budget counts, and how many of them are unavailable now.
func (e *Roster) BudgetUse(name string) (size, taken int) {
	for _, b := range e.budgets {
		if b.name == name {
			return b.size, b.taken
		}
	}
	return 0, 0
}

// Channel is that of a name, made if it is new.
func (e *Roster) Channel(name string) *Channel {
	c := e.Channels[name]
	if c == nil {
		c = &Channel{Row: rollout.Channel{V: rollout.Version, Name: name}, byKey: make(map[string]*Class)}
		e.Channels[name] = c
		i, _ := slices.BinarySearchFunc(e.Order, name, func(c *Channel, name string) int { return strings.Compare(c.Row.Name, name) })
		e.Order = slices.Insert(e.Order, i, c)
	}
	return c
}

// SetRun makes a row the channel's roll-out, of which nothing is counted yet: TouchAll
// is to follow.
func (e *Roster) SetRun(c *Channel, row *rollout.Rollout) {
	for _, h := range c.Hosts {
		e.uncount(h)
	}
	release := e.Releases(c.Row.Name, row.Seq)
	if release == nil {
		release = &rollout.Release{Seq: row.Seq}
	}
	c.Run = &Run{Row: row, Release: release, Reverted: make(map[string]int), Waves: make([]Tally, len(row.Waves)), Pending: make([][]int, len(row.Policy.After)), Failed: make([][]int, len(row.Policy.After))}
	for i := range c.Run.Pending {
		c.Run.Pending[i], c.Run.Failed[i] = make([]int, len(row.Waves)), make([]int, len(row.Waves))
	}
}

// SetLimits replaces budgets, holds and freeze.
func (e *Roster) SetLimits(l rollout.Limits) {
	for _, c := range e.Order {
		for _, h := range c.Hosts {
			e.uncount(h)
		}
	}
	e.Limits, e.budgets = l, nil
	for name, b := range l.Budgets {
		e.budgets = append(e.budgets, &Budget{Budget: b, name: name})
	}
	slices.SortFunc(e.budgets, func(a, b *Budget) int { return strings.Compare(a.name, b.name) })
	for _, c := range e.Order {
		e.TouchAll(c)
	}
}

// Frozen tells whether nobody is to be granted anything.
func (e *Roster) Frozen() bool {
	f := e.Limits.Freeze
	return f != nil && (f.Until.IsZero() || e.Now.Before(f.Until))
}

// Able tells whether the roll-outs of a channel may go on by the calendar.
func (e *Roster) Able(c *Channel) bool { return !c.Closed && !e.Frozen() }

// Changed notes that a host's row is another.
func (e *Roster) Changed(h *Host) {
	if !h.dirty {
		h.dirty = true
		e.dirtyHosts = append(e.dirtyHosts, h)
	}
}

// ChangedRun notes that the row of a roll-out is another.
func (e *Roster) ChangedRun(r *Run) {
	r.changed = true
	e.Keep(r)
}

// Keep notes that the row of a roll-out is to be stored, under the same number.
func (e *Roster) Keep(r *Run) {
	if !r.dirty {
		r.dirty = true
		e.dirtyRuns = append(e.dirtyRuns, r)
	}
}

// Decide notes a decision.
func (e *Roster) Decide(d rollout.Decision) { e.Out.Decisions = append(e.Out.Decisions, d) }

// Finish hands over what the step has changed.
func (e *Roster) Finish() *rollout.Changes {
	out := e.Out
	e.Out = new(rollout.Changes)
	for _, h := range e.dirtyHosts {
		h.dirty = false
		if e.Hosts[h.Row.Name] == h {
			out.Hosts = append(out.Hosts, &h.Row)
		}
	}
	e.dirtyHosts = e.dirtyHosts[:0]
	for _, r := range e.dirtyRuns {
		if r.changed {
			r.Row.Rev++
		}
		r.dirty, r.changed = false, false
		out.Rollouts = append(out.Rollouts, r.Row)
	}
	e.dirtyRuns = e.dirtyRuns[:0]
	out.Next = Sooner(e.timers.first(), e.nextLimit())
	for _, c := range e.Order {
		if c.Changed {
			c.Changed = false
			out.Channels = append(out.Channels, &c.Row)
		}
		out.Next = Sooner(out.Next, c.Next)
	}
	return out
}

// nextLimit is when a hold or the freeze ends by itself.
func (e *Roster) nextLimit() (at time.Time) {
	if f := e.Limits.Freeze; f != nil && f.Until.After(e.Now) {
		at = f.Until
	}
	for _, h := range e.Limits.Holds {
		if h.Until.After(e.Now) {
			at = Sooner(at, h.Until)
		}
	}
	return at
}

// Sooner is the earlier of two times, of which zero is never.
func Sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
