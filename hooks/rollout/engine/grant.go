package engine

import (
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/attempt"
	"narwharf/hooks/rollout/roster"
)

// grants gives leave to as many hosts as have a place, in the order of waves and then
// of their turns.
func (e *Engine) grants(c *roster.Channel) {
	for e.room(c) {
		h := e.Roster.Next(c)
		if h == nil {
			return
		}
		e.Apply(h, (*attempt.Case).Grant)
	}
}

// room tells whether one more host may be in flight.
func (e *Engine) room(c *roster.Channel) bool {
	run := c.Run
	if run == nil || !e.Able(c) {
		return false
	}
	switch run.Row.State {
	case rollout.Running:
		return c.Flight < run.Row.Policy.Concurrency(run.Total, run.Row.Rollback)
	case rollout.Completed: // late hosts, one by one
		return c.Flight == 0
	}
	return false
}

// reverts asks hosts to leave the release, those last that were granted first, as many
// at a time as may be in flight. Places of hosts that cannot be reached are not waited
// for; budgets are kept all the same.
func (e *Engine) reverts(c *roster.Channel) {
	run := c.Run
	if run == nil || run.Row.Revert == "" {
		return
	}
	limit := run.Row.Policy.Concurrency(run.Total, run.Row.Rollback)
	for c.Flight-c.Stuck < limit {
		h := e.NextBack(c)
		if h == nil {
			return
		}
		e.Apply(h, (*attempt.Case).Direct)
	}
}
