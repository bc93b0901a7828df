package nixos_test

import (
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// TestClocksStop: what a probation measures stands still while nobody can look, because the
// machine sleeps, or is stopped without knowing it.
func TestClocksStop(t *testing.T) {
	never := func(*sim.World, time.Duration) {}
	for name, c := range map[string]struct {
		b           sim.System
		down        bool // the server, from the beginning of the probation
		away        func(w *sim.World, d time.Duration)
		after       func(w *sim.World, since time.Duration) // with each turn after it, since the probation began
		d           time.Duration
		want        api.State
		unconfirmed bool
	}{
		"suspended":                          {d: 230 * time.Second, away: (*sim.World).Suspend, want: api.OK},
		"for a night":                        {d: 9 * time.Hour, away: (*sim.World).Suspend, want: api.OK},
		"stopped":                            {d: 230 * time.Second, away: func(w *sim.World, d time.Duration) { w.Clock += d.Milliseconds() }, want: api.OK},
		"stopped for hours":                  {d: 5 * time.Hour, away: func(w *sim.World, d time.Duration) { w.Clock += d.Milliseconds() }, want: api.OK},
		"a check was still on its way":       {b: sim.System{ChecksAfter: 8 * time.Second}, d: 50 * time.Second, away: (*sim.World).Suspend, want: api.OK},
		"a check that never comes up counts": {b: sim.System{CheckFails: true}, d: 50 * time.Second, away: (*sim.World).Suspend, want: api.Reverted},
		"a unit had crashed":                 {b: sim.System{CrashEvery: 2 * time.Second, CrashTimes: 4}, d: time.Minute, away: (*sim.World).Suspend, want: api.OK},
		"the server is away before and after it": {down: true, d: 10 * time.Minute, away: (*sim.World).Suspend, want: api.OK, after: func(w *sim.World, since time.Duration) {
			w.Down = since < 30*time.Second
		}},
		"it stays away": {down: true, d: 10 * time.Minute, away: (*sim.World).Suspend, want: api.OK, unconfirmed: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := world(t, c.b)
			w.Promote(2, pathB, signing.Switch)
			until(t, w, api.Probation)
			began := w.Clock
			w.Down = c.down
			agent := w.Agent(w.Keys.Rules())
			if err := agent.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if c.after == nil {
				c.after = never
			}
			slept := false
			for range 2000 {
				if w.Clock-began >= 5000 && !slept {
					slept = true
					c.away(w, c.d)
					began += c.d.Milliseconds()
				}
				if slept {
					c.after(w, time.Duration(w.Clock-began)*time.Millisecond)
				}
				if err := agent.Turn(t.Context()); err != nil {
					t.Fatal(err)
				}
				if s := agent.Journal().State; s != api.Probation && s != api.Committing && s != api.Reverting {
					break
				}
			}
			checkTruth(t, w)
			j := agent.Journal()
			if j.State != c.want || j.Attempt.Unconfirmed != c.unconfirmed || !slept {
				t.Errorf("%s (%s), unconfirmed %t, want %s", j.State, j.Error, j.Attempt.Unconfirmed, c.want)
			}
			if took := j.Attempt.Durations["probation"]; c.want == api.OK && took < 10_000 {
				t.Errorf("probation took %d ms", took)
			}
		})
	}
}

// TestTestOutlivesSleep: the deadline of a test is of time in which the machine is awake.
func TestTestOutlivesSleep(t *testing.T) {
	w := world(t, sim.System{})
	rules := w.Keys.Rules()
	rules.TestDeadline = time.Hour
	w.Promote(2, pathB, signing.Test)
	state := func() api.State {
		t.Helper()
		j, err := w.Drive(rules, 300, nil)
		if err != nil {
			t.Fatal(err)
		}
		checkTruth(t, w)
		return j.State
	}
	if s := state(); s != api.Testing {
		t.Fatal(s)
	}
	w.Clock += (10 * time.Minute).Milliseconds()
	w.Suspend(8 * time.Hour)
	if s := state(); s != api.Testing {
		t.Errorf("after a night it is %s", s)
	}
	w.Clock += (40 * time.Minute).Milliseconds()
	if s := state(); s != api.Testing {
		t.Errorf("50 minutes awake: %s", s)
	}
	w.Clock += (11 * time.Minute).Milliseconds()
	if s := state(); s != api.TestOver || w.Current != pathA {
		t.Errorf("an hour awake: %s with %s", s, w.Current)
	}
}
