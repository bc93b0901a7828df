package roster

import (
	"fmt"
	"maps"
	"slices"

	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/policy"
)

// Class is hosts of a channel for which the same rules hold. They wait in its lines:
// if the first of a line is held back by a rule, so are all behind it.
type Class struct {
	Budgets []*Budget
	First   []int // rules of after by which others wait for these hosts
	Then    []int // rules by which these hosts wait
	held    bool
	hold    string // the reason
	run     *Run
	toCome  map[int]int // hosts that are to be granted, by wave

	Line  Heap // for a grant
	Spare Heap // for a grant, of hosts that are unavailable already: no budget
	Back  Heap // to leave the release, those last that were granted first
}

func (c *Class) skips(rule int) bool {
	return c.run.Row.Policy.After[rule].IfOffline == policy.Skip
}

// classOf finds the class of a host by its labels.
func (e *Roster) classOf(h *Host) *Class {
	c, labels := h.ch, h.Level.Labels
	cl := &Class{run: c.Run, toCome: make(map[int]int)}
	for _, name := range e.holdNames() {
		if hold := e.Limits.Holds[name]; (hold.Until.IsZero() || e.Now.Before(hold.Until)) && hold.Select.Matches(labels) {
			cl.held, cl.hold = true, hold.Reason
		}
	}
	for _, b := range e.budgets {
		if b.Select.Matches(labels) {
			cl.Budgets = append(cl.Budgets, b)
		}
	}
	cl.order(labels)
	key := ""
	if cl.held || cl.Budgets != nil || cl.First != nil || cl.Then != nil {
		for _, b := range cl.Budgets {
			key += b.name + "\x00"
		}
		key += fmt.Sprint(cl.First, cl.Then, cl.held, cl.hold)
	}
	if is := c.byKey[key]; is != nil {
		return is
	}
	c.byKey[key] = cl
	c.Classes = append(c.Classes, cl)
	return cl
}

// order finds the rules of after that are about a class.
func (c *Class) order(labels map[string]string) {
	if c.run == nil {
		return
	}
	for i, a := range c.run.Row.Policy.After {
		if a.First.Matches(labels) {
			c.First = append(c.First, i)
		}
		if a.Then.Matches(labels) {
			c.Then = append(c.Then, i)
		}
	}
}

func (e *Roster) holdNames() []string {
	if len(e.Limits.Holds) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(e.Limits.Holds))
}

// sized counts a host to the sizes of its budgets.
func (e *Roster) sized(h *Host, d int) {
	for _, b := range h.Class.Budgets {
		b.size += d
		e.freed = true // of more hosts more may be unavailable
	}
}

// Freed lets channels look again whose hosts may have waited for a budget.
func (e *Roster) Freed() {
	if !e.freed {
		return
	}
	e.freed = false
	for _, c := range e.Order {
		c.Due = c.Due || slices.ContainsFunc(c.Classes, func(cl *Class) bool { return cl.Budgets != nil })
	}
}

// lineOf is the line in which a host waits, nil if in none.
func (e *Roster) lineOf(h *Host, f *Facet) *Heap {
	r, run := &h.Row, h.ch.Run
	if run == nil {
		return nil
	}
	leaves := false
	if run.Row.Revert != "" {
		c := e.Case(h)
		leaves = c.Leaves()
	}
	switch {
	case leaves && !f.Away && (r.Phase == rollout.Well || r.Phase == rollout.Armed):
		return &h.Class.Back
	case f.waiting && (f.Wave > 0 || run.Row.State == rollout.Completed):
		if f.Taken {
			return &h.Class.Spare
		}
		return &h.Class.Line
	}
	return nil
}

// stand puts a host into a line, or takes it out of the one in which it is.
func (e *Roster) stand(h *Host, line *Heap) {
	away := !h.Away.IsZero()
	if line == h.line && (line == nil || away == h.lineAway) {
		return
	}
	h.line, h.lineAway = line, away
	h.lineVersion++
	if line == nil {
		return
	}
	x := entry{a: int64(h.Row.Wave)<<32 | int64(h.Row.Turn), b: h.Turn(), h: h, version: h.lineVersion}
	if away { // it would hold a place, and may not come
		x.a |= 1 << 31
	}
	if line == &h.Class.Back {
		x.a = -h.Row.At.UnixNano()
	}
	line.push(x)
	h.ch.Due = true
}

// Rule says which rule holds back a host that waits, "" for none. No budget holds back
// one that is unavailable already.
func (e *Roster) Rule(c *Channel, cl *Class, h *Host, unavailable bool) string {
	run := c.Run
	for _, i := range cl.Then {
		upTo := int(h.Row.Wave)
		if h.Row.WaveOf != run.Row.Seq || upTo == 0 {
			upTo = len(run.Pending[i])
		}
		for _, n := range run.Pending[i][:upTo] {
			if n > 0 {
				return "after"
			}
		}
	}
	if !unavailable && cl.full() {
		return "budget"
	}
	return ""
}

// Barred is how many hosts of the current wave wait for others (after) that ended badly: it
// takes a person to let them go on.
func (e *Roster) Barred(c *Channel) (n int) {
	for _, cl := range c.Classes {
		if wave := len(c.Run.Waves); cl.toCome[wave] > 0 && cl.barred(wave) {
			n += cl.toCome[wave]
		}
	}
	return n
}

// barred tells whether some that a class waits for, in waves up to one, ended badly.
func (c *Class) barred(wave int) bool {
	for _, i := range c.Then {
		for _, n := range c.run.Failed[i][:wave] {
			if n > 0 {
				return true
			}
		}
	}
	return false
}

func (c *Class) full() bool { return slices.ContainsFunc(c.Budgets, (*Budget).Full) }

// Next is the host whose turn it is to be granted, nil if no rule lets any.
func (e *Roster) Next(c *Channel) *Host {
	var best *entry
	for _, cl := range c.Classes {
		for _, line := range []*Heap{&cl.Line, &cl.Spare} {
			x := line.top()
			if x != nil && (best == nil || x.before(best)) && e.Rule(c, cl, x.h, line == &cl.Spare) == "" {
				best = x
			}
		}
	}
	if best == nil {
		return nil
	}
	return best.h
}

// NextBack is the host whose turn it is to leave the release, nil if there is none.
func (e *Roster) NextBack(c *Channel) *Host {
	var best *entry
	for _, cl := range c.Classes {
		if x := cl.Back.top(); x != nil && (best == nil || x.before(best)) && (x.h.Counted.Taken || !cl.full()) {
			best = x
		}
	}
	if best == nil {
		return nil
	}
	return best.h
}
