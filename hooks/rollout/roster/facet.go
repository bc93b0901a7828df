package roster

import (
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
)

// category is what a host is to its wave.
type category uint8

// The categories.
const (
	None  category = iota // it need not change
	Well                  // it runs the release
	Bad                   // it ended badly
	Open                  // it is to be granted, or on its way
	Aside                 // not counted: offline, held and so on
	categories
)

// Facet is all that is counted of a host. It follows from row, level and time alone.
type Facet struct {
	on    bool // it is counted at all
	run   *Run
	class *Class

	Wave     int // from 1
	Category category
	Total    bool // it has to change, or had to
	Must     bool // it has to change
	Taken    bool // it is unavailable, for budgets
	Away     bool // offline
	Fresh    bool // it has confirmed nothing yet

	fault, flight, stuck, asked bool
	pending, pendingAway        bool
	failed                      bool // others wait for it (after), and it ended badly
	toCome                      bool // it is in a wave, and is to be granted
	aside, waiting              bool
	system                      string // that it went back from by itself
}

// look finds out what is to be counted of a host.
func (e *Roster) look(h *Host) Facet {
	r, l, c := &h.Row, &h.Level, h.ch
	f := Facet{on: true, run: c.Run, class: h.Class, Away: e.offline(h), flight: r.Phase.InFlight()}
	f.stuck = f.flight && (f.Away || r.Fault == rollout.TimedOut)
	f.asked = r.Phase == rollout.Reverting
	f.Taken = f.flight || r.Phase == rollout.Armed && l.Slot || l.State == api.Failed
	if c.Run == nil {
		return f
	}
	seq := c.Run.Row.Seq
	entry := c.Run.Release.Entry(l.Target)
	about := r.Seq == seq && r.Phase != rollout.Untouched
	f.Fresh = e.fresh(h)
	// What is under way with another release ends with that one's system.
	f.Must = entry != nil && (entry.Changes(l) || f.flight && r.Seq != seq && e.leadsElsewhere(h, entry))
	f.Total = f.Must && !f.Fresh || about
	f.fault = about && r.Fault != "" && !r.Forgiven
	if f.fault && r.Fault == rollout.Reverted && entry != nil {
		f.system = entry.Key()
	}
	f.aside = f.Away || f.Fresh || entry == nil || setAside(h, seq)
	if r.WaveOf == seq && int(r.Wave) <= len(c.Run.Waves) {
		f.Wave = int(r.Wave)
		f.Category = categoryOf(h, &f, about)
	}
	f.pending = f.Category == Open || f.Category == Bad || f.Category == Aside && !f.Away
	f.pendingAway = f.Category == Aside && f.Away
	f.failed = f.Category == Bad && !f.flight
	f.toCome = f.Category == Open && !f.flight && !(about && r.Phase == rollout.Armed)
	if about && r.Forgiven {
		f.pending, f.pendingAway = false, false // resume goes on without it
	}
	if f.Category == None && f.Wave > 0 && f.Must {
		// It has leave by a rule, and counts for no wave; others wait for it all the same.
		f.pending, f.pendingAway = !f.Away, f.Away
	}
	f.waiting = f.Must && !f.flight && !f.aside && !about && e.mayBegin(h, entry)
	return f
}

// setAside tells whether a host, or somebody, says that it takes no part now.
func setAside(h *Host, seq int64) bool {
	l := &h.Level
	return l.Held || h.Class.held || l.Paused || l.TooOld || l.State == "" || l.Seq == seq && (l.State == api.Drifted || l.State == api.NotInRelease)
}

// categoryOf is for a host that is in a wave.
func categoryOf(h *Host, f *Facet, about bool) category {
	r := &h.Row
	drifted := h.Level.State == api.Drifted && h.Level.Seq == r.Seq
	switch {
	case about && r.Phase == rollout.Well && !drifted:
		return Well
	case about && r.Fault != "" && r.Phase != rollout.Well:
		if r.Forgiven {
			return Aside
		}
		return Bad
	case about && (r.Phase == rollout.Well || r.Phase == rollout.Back || r.Phase == rollout.Left):
		return Aside
	case f.flight, about && r.Phase == rollout.Armed && !f.Away:
		return Open
	case !about && (!f.Must || f.Fresh):
		return None
	case f.aside:
		return Aside
	}
	return Open
}

// count adds a facet to what is counted, or takes it away.
func (e *Roster) count(h *Host, f *Facet, d int) {
	if !f.on {
		return
	}
	add := func(what *int, is bool) {
		if is {
			*what += d
		}
	}
	add(&h.ch.Flight, f.flight)
	add(&h.ch.Stuck, f.stuck)
	add(&h.ch.Asked, f.asked)
	for _, b := range f.class.Budgets {
		add(&b.taken, f.Taken)
		e.freed = e.freed || f.Taken && d < 0
	}
	r := f.run
	if r == nil || r != h.ch.Run {
		return
	}
	add(&r.Total, f.Total)
	add(&r.Faults, f.fault)
	if f.Wave > 0 {
		r.Waves[f.Wave-1][f.Category] += d
		for _, i := range f.class.First {
			add(&r.Pending[i][f.Wave-1], f.pending || f.pendingAway && !f.class.skips(i))
			add(&r.Failed[i][f.Wave-1], f.failed)
		}
		if f.toCome {
			f.class.toCome[f.Wave] += d
		}
	}
	if f.system != "" {
		if r.Reverted[f.system] += d; d > 0 {
			r.Suspects = append(r.Suspects, f.system)
		}
	}
}

// leadsElsewhere tells whether what a host is at with another release leads to another
// system than an entry's.
func (e *Roster) leadsElsewhere(h *Host, entry *rollout.Entry) bool {
	c := e.Case(h)
	old := c.Entry(h.Row.Seq)
	return old == nil || old.Path != entry.Path
}

// mayBegin tells whether a host waits for nothing but the server.
func (e *Roster) mayBegin(h *Host, entry *rollout.Entry) bool {
	run := h.ch.Run
	if e.Quarantined(run, entry) {
		return false
	}
	word := rollout.WordOf(&h.Level, run.Row.Seq, entry, h.Row.Over)
	if h.Row.Retry || !run.Row.Policy.Prefetches() {
		return word != rollout.HoldsBack
	}
	return word == rollout.Ready
}

// Quarantined tells whether an entry is given to nobody.
func (e *Roster) Quarantined(run *Run, entry *rollout.Entry) bool {
	if len(e.Quarantine) == 0 || run.Row.Now || run.Row.Force {
		return false
	}
	return e.Quarantine[entry.Key()] != nil
}

// offline tells whether a host was not heard of for too long.
func (e *Roster) offline(h *Host) bool {
	at := e.offlineAt(h)
	return !at.IsZero() && !e.Now.Before(at)
}

func (e *Roster) offlineAt(h *Host) time.Time {
	if h.Away.IsZero() {
		return time.Time{}
	}
	if h.Away.Before(e.Began) {
		return e.Heard(h.ch)
	}
	return h.Away.Add(offlineAfter(h.ch))
}

func offlineAfter(c *Channel) time.Duration {
	if c.Run != nil {
		return c.Run.Row.Policy.Offline()
	}
	return 10 * time.Minute
}

// Heard is when hosts of a channel have been heard of since the driver's start, or are
// offline.
func (e *Roster) Heard(c *Channel) time.Time { return e.Began.Add(offlineAfter(c)) }

// fresh tells whether a machine has confirmed nothing yet, and there is a release that
// it may have at once.
func (e *Roster) fresh(h *Host) bool {
	newest := h.ch.Row.Newest()
	if h.Level.Confirmed != "" || newest == 0 || newest < h.Level.HighestSeq || h.Row.Phase != rollout.Untouched {
		return false
	}
	c := e.Case(h)
	return c.Entry(newest) != nil
}
