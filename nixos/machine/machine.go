package machine

import (
	"time"

	"narwharf/nixos/desired"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/signing"
)

// Rules are what a Machine goes by; the host's own configuration makes them.
type Rules struct {
	desired.Rules
	Auto signing.Action // what the action auto means here; "" is auto

	Settle    time.Duration // what fails in probation may take so long to come up
	Interval  time.Duration // between two looks
	CheckTime time.Duration // that one round of checks may take

	Hooks        map[effect.HookName]bool // that are configured
	TestDeadline time.Duration            // after which a test is over; 0: only with a boot
	Jitter       time.Duration            // of downloads, at most
}

// A Machine is the agent's state machine. It is pure: what it knows of the
// world comes with events, and what it wants goes out as effects.
type Machine struct{ Rules Rules }

// Step says what an event makes of a journal, which is not changed itself.
// An event that does not belong to the journal's phase changes nothing.
func (m *Machine) Step(old *journal.Journal, f effect.Facts, ev effect.Event) *journal.Journal {
	t := m.turn(old.Clone(), f)
	switch ev := ev.(type) {
	case effect.Started:
		start(t)
	case effect.Polled:
		t.j.Hear(ev.Desired, ev.ETag, f.Now, f.BootID)
		if Resting(t.a) {
			reconcile(t)
		}
	default:
		if t.a != nil && table[t.a.Phase].on != nil {
			t.follow(table[t.a.Phase].on(t, ev))
		}
	}
	return t.j
}

// Effect is what is due: a function of the journal alone, so that it is the
// same after a crash.
func (m *Machine) Effect(j *journal.Journal) effect.Effect {
	if j.Attempt == nil {
		return effect.Poll{ETag: j.ETag}
	}
	return table[j.Attempt.Phase].effect(&m.Rules, j)
}

// Accepted is the highest release that the host has accepted of its channel.
func (m *Machine) Accepted(j *journal.Journal) journal.Seen { return j.Seen[m.Rules.Channel()] }

// Resting tells whether a poll is due, and the server's word is acted on.
func Resting(a *journal.Attempt) bool { return a == nil || table[a.Phase].atRest != nil }
