package nixos_test

import (
	"sync"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/journal"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

var (
	pathA = sim.Path("a")
	pathB = sim.Path("b")
	pathC = sim.Path("c")
)

var followsA = sync.OnceValue(func() *sim.World {
	w := sim.New(&sim.System{Path: pathA})
	w.Promote(1, pathA, signing.Auto)
	if j, err := w.Drive(w.Keys.Rules(), 100, nil); err != nil || j.State != api.OK {
		panic("the first release did not end well")
	}
	return w
})

// world is a host that has followed its channel to A, with B to come.
func world(t testing.TB, b sim.System) *sim.World {
	t.Helper()
	w := followsA().Clone()
	b.Path = pathB
	w.Add(&b)
	return w
}

func drive(t testing.TB, w *sim.World) *journal.Journal {
	t.Helper()
	j, err := w.Drive(w.Keys.Rules(), 2000, nil)
	if err != nil {
		t.Fatal(err, tail(w.Trace))
	}
	checkTruth(t, w)
	return j
}

func tail(s []string) []string { return s[max(0, len(s)-30):] }

func checkTruth(t testing.TB, w *sim.World) {
	t.Helper()
	for _, v := range w.Violations {
		t.Error(v)
	}
	if t.Failed() {
		t.Fatal(tail(w.Trace))
	}
}

func TestStraightOn(t *testing.T) {
	w := world(t, sim.System{})
	w.Promote(2, pathB, signing.Auto)
	j := drive(t, w)
	if j.State != api.OK || w.Current != pathB || w.Profile() != pathB || w.BootEntry != pathB || j.Confirmed != pathB || j.ConfirmedBefore != pathA {
		t.Fatalf("%s (%s): current %s profile %s boots %s confirmed %s", j.State, j.Error, w.Current, w.Profile(), w.BootEntry, j.Confirmed)
	}
	want := []api.State{api.Verifying, api.Staging, api.Staged, api.Draining, api.Activating, api.Probation, api.Committing, api.OK}
	var got []api.State
	for _, tr := range j.Attempt.Transitions {
		got = append(got, tr.State)
	}
	if len(got) != len(want) {
		t.Fatalf("transitions %v, want %v", got, want)
	}
	if last := w.Acks[len(w.Acks)-1]; last.State != api.OK || last.Confirm != j.Attempt.Nonce || last.Durations["probation"] < 10_000 {
		t.Errorf("last report: %+v", last)
	}
	if len(w.Logs) != 1 {
		t.Errorf("%d logs were posted", len(w.Logs))
	}
}

func TestEnds(t *testing.T) {
	for _, c := range []struct {
		name    string
		b       sim.System
		action  signing.Action
		before  func(w *sim.World)
		state   api.State
		current string
		profile string
		exit    int
	}{
		{name: "switch", action: signing.Switch, state: api.OK, current: pathB, profile: pathB},
		{name: "activation fails", b: sim.System{TestExit: 2}, state: api.Reverted, current: pathA, profile: pathA, exit: 2},
		{name: "exit 1", b: sim.System{TestExit: 1}, state: api.Reverted, current: pathA, profile: pathA, exit: 1},
		{name: "says 0 and does nothing", b: sim.System{StaysOut: true}, state: api.Reverted, current: pathA, profile: pathA},
		{name: "a unit fails", b: sim.System{Units: []string{"web.service"}}, state: api.Reverted, current: pathA, profile: pathA, exit: 4},
		{name: "a unit fails later", b: sim.System{Units: []string{"web.service"}, UnitsAfter: 7 * time.Second}, state: api.Reverted, current: pathA, profile: pathA},
		{name: "exit 4 by an old failure", b: sim.System{TestExit: 4}, before: func(w *sim.World) { w.Baseline = []string{"old.service"} },
			state: api.OK, current: pathB, profile: pathB, exit: 4},
		{name: "a check fails", b: sim.System{CheckFails: true}, state: api.Reverted, current: pathA, profile: pathA},
		{name: "a check needs a while", b: sim.System{ChecksAfter: 6 * time.Second}, state: api.OK, current: pathB, profile: pathB},
		{name: "the network is cut", b: sim.System{CutsNetwork: true}, state: api.Reverted, current: pathA, profile: pathA},
		{name: "the new agent is broken", b: sim.System{AgentBroken: true}, state: api.Reverted, current: pathA, profile: pathA},
		{name: "the new agent is refused", b: sim.System{Refused: true}, state: api.Reverted, current: pathA, profile: pathA},
		{name: "it hangs", b: sim.System{Hangs: true}, state: api.Reverted, current: pathA, profile: pathA},
		{name: "the boot entry fails", b: sim.System{BootExit: 1}, state: api.Reverted, current: pathA, profile: pathA},
		{name: "the boot entry fills /boot", b: sim.System{FillsBoot: true}, state: api.Reverted, current: pathA, profile: pathA},
		{name: "needs a reboot", b: sim.System{Reboot: []string{"kernel"}}, state: api.Armed, current: pathA, profile: pathB},
		{name: "init interface", b: sim.System{TestExit: 100}, state: api.Armed, current: pathA, profile: pathB},
		{name: "init interface, switch", b: sim.System{TestExit: 100}, action: signing.Switch, state: api.Reverted, current: pathA, profile: pathA, exit: 100},
		{name: "boot", action: signing.Boot, state: api.Armed, current: pathA, profile: pathB},
		{name: "boot fails", b: sim.System{BootExit: 1}, action: signing.Boot, state: api.Reverted, current: pathA, profile: pathA, exit: 1},
		{name: "test", action: signing.Test, state: api.Testing, current: pathB, profile: pathA},
		{name: "dry-activate", action: signing.DryActivate, state: api.DryRunDone, current: pathA, profile: pathA},
		{name: "no boot entry can be written any more", b: sim.System{BootExit: 1}, before: func(w *sim.World) { w.Systems[pathA].BootExit = 1 },
			state: api.Failed, current: pathA, profile: pathA},
		{name: "going back fails", b: sim.System{TestExit: 2}, before: func(w *sim.World) { w.Systems[pathA].BackExit = 2 },
			state: api.Failed, current: pathA, profile: pathA, exit: 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := world(t, c.b)
			if c.before != nil {
				c.before(w)
			}
			if c.action == "" {
				c.action = signing.Auto
			}
			w.Promote(2, pathB, c.action)
			j := drive(t, w)
			if j.State != c.state || w.Current != c.current || w.Profile() != c.profile {
				t.Fatalf("ended %s (%s), current %s, profile %s", j.State, j.Error, w.Current, w.Profile())
			}
			if x := j.Attempt.SwitchExit; c.exit != 0 && (x == nil || *x != c.exit) {
				t.Errorf("exit %v, want %d", x, c.exit)
			}
			if c.state == api.Reverted {
				if w.BootEntry != pathA {
					t.Errorf("%s boots", w.BootEntry)
				}
				if _, ok := j.Denied[j.Attempt.Entry]; !ok {
					t.Error("the entry is not denied")
				}
			}
			if last := w.Acks[len(w.Acks)-1]; last.State != c.state {
				t.Errorf("the server was told %s", last.State)
			}
		})
	}
}
