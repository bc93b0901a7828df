package nixos_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// TestActivationFailedBehindUnits: a unit that fails makes 4 of the exit code 2. What
// switch-to-configuration wrote tells.
func TestActivationFailedBehindUnits(t *testing.T) {
	w := world(t, sim.System{TestExit: 2})
	w.Baseline = []string{"old.service"}
	w.Promote(2, pathB, signing.Auto)
	j := drive(t, w)
	if j.State != api.Reverted || w.Current != pathA || *j.Attempt.SwitchExit != 2 || !strings.Contains(j.Error, "its activation script failed") {
		t.Errorf("%s (%s), exit %d", j.State, j.Error, *j.Attempt.SwitchExit)
	}
	// So it is on the way back.
	w = world(t, sim.System{CheckFails: true})
	w.Baseline = []string{"old.service"}
	w.Systems[pathA].BackExit = 2
	w.Promote(2, pathB, signing.Auto)
	if j := drive(t, w); j.State != api.Failed || !strings.Contains(j.Error, "its activation script failed") {
		t.Errorf("going back: %s (%s)", j.State, j.Error)
	}
}

// TestWayBackIsTriedAgain: what is in its way may pass.
func TestWayBackIsTriedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		b      sim.System
		action signing.Action
		before func(w *sim.World)
		want   api.State
		tries  int           // runs of the old system's script, at least
		took   time.Duration // at most, where it failed
	}{
		"logind is away for a while": {b: sim.System{CheckFails: true}, before: func(w *sim.World) { w.Systems[pathA].BackFails = 5 }, want: api.Reverted, tries: 6},
		"it never answers":           {b: sim.System{CheckFails: true}, before: func(w *sim.World) { w.Systems[pathA].BackFails = 100 }, want: api.Failed, tries: 8, took: 7 * time.Minute},
		"each of its runs hangs":     {b: sim.System{CheckFails: true}, before: func(w *sim.World) { w.Systems[pathA].Hangs = true }, want: api.Failed, tries: 2, took: 32 * time.Minute},
		"the lock is held":           {b: sim.System{CheckFails: true}, before: func(w *sim.World) { w.Systems[pathA].Locked = 30 }, want: api.Reverted, tries: 31},
		"the profile cannot be set": {b: sim.System{CheckFails: true}, action: signing.Boot, want: api.Reverted, before: func(w *sim.World) {
			times := 2
			w.Fail = func(op string) error {
				if op == "reset profile" && times > 0 {
					times--
					return errors.New("no space left on device")
				}
				return nil
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := world(t, c.b)
			c.before(w)
			if c.action == "" {
				c.action = signing.Switch
			}
			w.Promote(2, pathB, c.action)
			if c.action == signing.Boot {
				until(t, w, api.Armed)
				w.PowerCycle()
			}
			began, runs := w.Clock, w.Started()
			j := drive(t, w)
			if j.State != c.want || w.Started()-runs < c.tries || w.Current != map[api.State]string{api.Reverted: pathA, api.Failed: pathB}[c.want] {
				t.Errorf("%s (%s) with %s after %d runs", j.State, j.Error, w.Current, w.Started()-runs)
			}
			if took := time.Duration(w.Clock-began) * time.Millisecond; c.want == api.Failed && (took < 4*time.Minute || took > c.took) {
				t.Errorf("it gave up after %s", took)
			}
			if len(j.Attempt.Runs) > 8 || j.Attempt.Runs[0].Path != pathB {
				t.Errorf("the log has %+v", j.Attempt.Runs)
			}
		})
	}
}

// TestFailedStaysFailed: a host whose way back failed is that until something puts it
// right, also when the same entry comes again, or another that failed here.
func TestFailedStaysFailed(t *testing.T) {
	w := world(t, sim.System{CheckFails: true})
	w.Add(&sim.System{Path: pathC, CheckFails: true})
	w.Add(&sim.System{Path: pathD})
	step := func(seq int64, path string, want api.State) {
		t.Helper()
		w.Promote(seq, path, signing.Switch)
		if j := drive(t, w); j.State != want || (want == api.Failed && w.Acks[len(w.Acks)-1].Error == "") {
			t.Fatalf("seq %d: %s (%s), want %s", seq, j.State, j.Error, want)
		}
	}
	step(2, pathC, api.Reverted)
	w.Systems[pathA].BackExit = 11
	step(3, pathB, api.Failed)
	step(4, pathB, api.Failed)
	w.PowerCycle()
	step(5, pathB, api.Failed)
	step(6, pathC, api.Failed) // denied, too
	step(7, pathD, api.OK)
	step(8, pathB, api.Reverted)
}

// TestLockIsHeld: a run that could not get the lock did nothing, and says nothing against
// the new system.
func TestLockIsHeld(t *testing.T) {
	w := world(t, sim.System{Locked: 2, CanCheck: true})
	w.Promote(2, pathB, signing.Auto)
	if j := drive(t, w); j.State != api.OK || w.Current != pathB {
		t.Errorf("%s (%s)", j.State, j.Error)
	}
}

// TestLockIsHeldUnseen: nor does one where nothing is kept of what it wrote, if it touches nothing live.
func TestLockIsHeldUnseen(t *testing.T) {
	w := world(t, sim.System{Locked: 2})
	w.NoLogs = true
	w.Promote(2, pathB, signing.Boot)
	if j := drive(t, w); j.State != api.Armed && j.State != api.OK || w.Profile() != pathB {
		t.Errorf("%s (%s)", j.State, j.Error)
	}
}

// TestLockInOtherWords: an activation script may say the same of a lock of its own.
func TestLockInOtherWords(t *testing.T) {
	w := world(t, sim.System{TestExit: 2, Says: "activating the configuration...\nCould not acquire lock\nFailed to run activate script\n"})
	w.Promote(2, pathB, signing.Switch)
	if j := drive(t, w); j.State != api.Reverted || w.Current != pathA {
		t.Errorf("%s (%s)", j.State, j.Error)
	}
}
