package nixos_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"narwharf/hooks/api"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// The six ways in which a server that infers a host's state from snapshots is
// wrong (RIVALS.md, section 1): each is a property of what this host declares.

// aSystem is one that may misbehave.
func aSystem(rt *rapid.T, name string) sim.System {
	s := sim.System{Path: sim.Path(name)}
	switch rapid.SampledFrom([]string{"good", "good", "good", "exit 2", "exit 4", "unit", "late unit", "check", "slow check", "network", "agent", "boot", "reboot", "stays out", "refused", "switch check", "wrong bytes"}).Draw(rt, "behaviour of "+name) {
	case "exit 2":
		s.TestExit = 2
	case "exit 4":
		s.TestExit = 4
	case "unit":
		s.Units = []string{"web.service"}
	case "late unit":
		s.Units, s.UnitsAfter = []string{"web.service"}, time.Duration(rapid.IntRange(0, 9).Draw(rt, "seconds"))*time.Second
	case "check":
		s.CheckFails = true
	case "slow check":
		s.ChecksAfter = time.Duration(rapid.IntRange(0, 20).Draw(rt, "seconds")) * time.Second
	case "network":
		s.CutsNetwork = true
	case "agent":
		s.AgentBroken = true
	case "boot":
		s.BootExit = 1
	case "reboot":
		s.Reboot = []string{"kernel"}
	case "stays out":
		s.StaysOut = true
	case "refused":
		s.Refused = true
	case "switch check":
		s.CanCheck = true
	case "wrong bytes":
		s.WrongBytes = 2
	}
	s.Takes = time.Duration(rapid.IntRange(0, 5).Draw(rt, "takes")) * time.Second
	return s
}

// goneThrough is a world in which a random second release was tried.
func goneThrough(rt *rapid.T) *sim.World {
	w := followsA().Clone()
	b := aSystem(rt, "b")
	w.Add(&b)
	w.Promote(2, pathB, rapid.SampledFrom([]signing.Action{signing.Auto, signing.Switch, signing.Boot, signing.Test}).Draw(rt, "action"))
	if _, err := w.Drive(w.Keys.Rules(), 3000, nil); err != nil {
		rt.Fatal(err)
	}
	if len(w.Violations) > 0 {
		rt.Fatal(w.Violations)
	}
	return w
}

// Class 1, "stale current": after a revert the server believed in the bad
// system until the next check-in. Here the very report that says reverted says
// what runs; sim.World holds every single report against the truth.
func TestClass1CurrentIsNeverStale(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := goneThrough(rt)
		for _, s := range w.Statuses {
			if s.Seq == 2 && (s.State == api.Reverted || s.State == api.Failed) && s.Current == pathB && s.State == api.Reverted {
				rt.Fatalf("reverted, and current is still the bad system: %+v", s)
			}
		}
		if last := w.Acks[len(w.Acks)-1]; last.Current != w.Current || last.Profile != w.Profile() {
			rt.Fatalf("the server believes %s, true is %s", last.Current, w.Current)
		}
	})
}

// Class 2, "old passes open new gates": passes of the old system counted for
// the new one. Here no report of an attempt has a check before its switch has
// ended, and what is committed has passed since it runs.
func TestClass2OldPassesOpenNoGate(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := goneThrough(rt)
		for _, s := range w.Statuses {
			switch s.State {
			case api.Verifying, api.Staging, api.Staged, api.WaitingState, api.Draining, api.Activating:
				if len(s.Checks) > 0 || s.Confirm != "" || len(s.NewFailedUnits) > 0 {
					rt.Fatalf("%s with results that cannot be of this attempt: %+v", s.State, s.Checks)
				}
			}
		}
		if w.Systems[pathB].CheckFails && w.Profile() == pathB && w.Booted != pathB && w.Acks[len(w.Acks)-1].State == api.OK {
			rt.Fatal("committed with a check that never passed")
		}
	})
}

// Class 3, "timers start at notice": the failure clock started when the server
// saw the report. Here it starts when the host sees the failure: the revert
// begins one settle time later, give or take a look.
func TestClass3TimersStartAtTheFact(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := followsA().Clone()
		after := rapid.IntRange(0, 9).Draw(rt, "unit fails after")
		w.Add(&sim.System{Path: pathB, Units: []string{"web.service"}, UnitsAfter: time.Duration(after) * time.Second})
		w.Promote(2, pathB, signing.Auto)
		w.Down = false
		if rapid.Bool().Draw(rt, "reports get lost") {
			w.Fail = func(op string) error {
				if op == "report now" || op == "probe" {
					return fmt.Errorf("lost")
				}
				return nil
			}
		}
		if _, err := w.Drive(w.Keys.Rules(), 3000, nil); err != nil {
			rt.Fatal(err)
		}
		at := map[api.State]int64{}
		for _, s := range w.Statuses {
			if s.Seq == 2 {
				for _, tr := range s.Transitions {
					at[tr.State] = tr.After
				}
			}
		}
		took := time.Duration(at[api.Reverting]-at[api.Probation]) * time.Millisecond
		want := time.Duration(after)*time.Second + w.Keys.Rules().Probation.Settle
		if took < want || took > want+5*time.Second {
			rt.Fatalf("the revert began %s after the switch, want %s", took, want)
		}
	})
}

// Class 4, "zero soak": probation passed in the tick in which it began, before
// any probe had run. Here nothing passes before each enforcing check has
// answered in this attempt, however short probation is.
func TestClass4NothingPassesUnasked(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := followsA().Clone()
		b := aSystem(rt, "b")
		w.Add(&b)
		rules := w.Keys.Rules()
		rules.Minimum = 0
		w.Promote(2, pathB, signing.Switch)
		if _, err := w.Drive(rules, 3000, nil); err != nil {
			rt.Fatal(err)
		}
		if len(w.Violations) > 0 {
			rt.Fatal(w.Violations)
		}
		for _, s := range w.Statuses {
			if s.Seq == 2 && (s.State == api.Committing || s.State == api.OK) {
				if len(s.Checks) == 0 || !s.Checks[0].OK {
					rt.Fatalf("%s with checks %+v", s.State, s.Checks)
				}
			}
		}
	})
}

// Class 5, "done inferred from absence": a release that changed nothing left
// no rows, and its predecessor looked active for ever. Here a host says "ok,
// seq N" of a release that changes nothing, at once and in words.
func TestClass5NothingToDoIsSaid(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := followsA().Clone()
		seq := int64(1)
		for range rapid.IntRange(1, 5).Draw(rt, "releases") {
			seq += rapid.Int64Range(1, 10).Draw(rt, "step")
			w.Promote(seq, pathA, rapid.SampledFrom([]signing.Action{signing.Auto, signing.Switch, signing.Boot, signing.Test}).Draw(rt, "action"))
			before := w.Started()
			j, err := w.Drive(w.Keys.Rules(), 20, nil)
			if err != nil {
				rt.Fatal(err)
			}
			last := w.Acks[len(w.Acks)-1]
			if j.State != api.OK || last.State != api.OK || last.Seq != seq || last.Wanted != pathA || w.Started() != before {
				rt.Fatalf("seq %d: the server was told %s of seq %d", seq, last.State, last.Seq)
			}
		}
	})
}

// Class 6, "nonsense can be said": soaked with current ≠ declared. Here no
// report of any life, crashes, people and faults included, says what cannot
// be; sim.Nonsense is asked about each.
func TestClass6NonsenseCannotBeSaid(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) { life(rt) })
}
