package sim

import (
	"maps"
	"slices"
)

// Clone is a world that goes its own way from here.
func (w *World) Clone() *World {
	c := *w
	c.Systems = make(map[string]*System, len(w.Systems))
	for p, s := range w.Systems {
		copied := *s
		c.Systems[p] = &copied
	}
	c.Valid, c.Roots, c.checkedAt = maps.Clone(w.Valid), maps.Clone(w.Roots), maps.Clone(w.checkedAt)
	c.Other, c.Built = maps.Clone(w.Other), maps.Clone(w.Built)
	c.Dirty, c.Damaged, c.HookFails = maps.Clone(w.Dirty), maps.Clone(w.Damaged), maps.Clone(w.HookFails)
	c.Links, c.Baseline, c.Trace = slices.Clone(w.Links), slices.Clone(w.Baseline), slices.Clone(w.Trace)
	c.Statuses, c.Acks, c.Logs, c.Violations = slices.Clone(w.Statuses), slices.Clone(w.Acks), slices.Clone(w.Logs), slices.Clone(w.Violations)
	c.Hooks, c.Waits = slices.Clone(w.Hooks), slices.Clone(w.Waits)
	if w.Wants != nil {
		wants := *w.Wants
		c.Wants = &wants
	}
	c.runs = make([]*run, len(w.runs))
	for i, r := range w.runs {
		copied := *r
		c.runs[i] = &copied
	}
	return &c
}
