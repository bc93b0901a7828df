package nixos_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"narwharf/hooks/api"
	"narwharf/nixos/desired"
	"narwharf/nixos/effect"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

func revert(w *sim.World, seq int64, id string) {
	w.Wants.Directive = &api.Directive{Type: "revert", Seq: seq, ID: id}
}

func TestDirectiveRevert(t *testing.T) {
	w := world(t, sim.System{})
	w.Promote(2, pathB, signing.Auto)
	ends(t, w, api.OK, pathB, pathB, pathB)
	revert(w, 2, "d1")
	j := ends(t, w, api.Reverted, pathA, pathA, pathA)
	if !strings.Contains(j.Error, "asked to leave release 2") || j.Confirmed != pathA {
		t.Fatalf("%q, confirmed %s", j.Error, j.Confirmed)
	}
	// Once.
	runs := w.Started()
	ends(t, w, api.Reverted, pathA, pathA, pathA)
	revert(w, 2, "d2")
	ends(t, w, api.Reverted, pathA, pathA, pathA)
	if w.Started() != runs {
		t.Error("it was obeyed twice")
	}
	// The same entry stays out; retry lets it in.
	w.Promote(3, pathB, signing.Auto)
	ends(t, w, api.Reverted, pathA, pathA, pathA)
	w.Wants.Directive = &api.Directive{Type: "retry", Seq: 3, ID: "d3"}
	ends(t, w, api.OK, pathB, pathB, pathB)
	// And the same directive, heard again, is an old one.
	w.Promote(4, pathB, signing.Auto)
	w.Wants.Directive = &api.Directive{Type: "retry", Seq: 4, ID: "d3"}
	ends(t, w, api.OK, pathB, pathB, pathB)
}

func TestDirectiveRevertOfWhatDoesNotRun(t *testing.T) {
	for _, c := range []struct {
		name    string
		b       sim.System
		action  signing.Action
		seq     int64
		before  func(w *sim.World)
		state   api.State
		current string
		profile string
	}{
		{name: "testing", action: signing.Test, seq: 2, state: api.Reverted, current: pathA, profile: pathA},
		{name: "armed", action: signing.Boot, seq: 2, state: api.Reverted, current: pathA, profile: pathA},
		{name: "reverted", b: sim.System{CheckFails: true}, action: signing.Auto, seq: 2, state: api.Reverted, current: pathA, profile: pathA},
		{name: "another seq", action: signing.Auto, seq: 1, state: api.OK, current: pathB, profile: pathB},
		{name: "a later seq", action: signing.Auto, seq: 3, state: api.OK, current: pathB, profile: pathB},
		{name: "a person's", action: signing.Auto, seq: 2, before: func(w *sim.World) { w.HumanSwitch(pathC, true) }, state: api.Drifted, current: pathC, profile: pathC},
		{name: "a person's profile", action: signing.Boot, seq: 2, before: func(w *sim.World) { w.HumanSwitch(pathC, true) }, state: api.Drifted, current: pathC, profile: pathC},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := world(t, c.b)
			w.Add(&sim.System{Path: pathC})
			w.Promote(2, pathB, c.action)
			drive(t, w)
			if c.before != nil {
				c.before(w)
			}
			revert(w, c.seq, "d1")
			ends(t, w, c.state, c.current, c.profile, c.profile)
		})
	}
}

// TestDirectiveRevertBeforeItBegan: a host that waits never begins it.
func TestDirectiveRevertBeforeItBegan(t *testing.T) {
	w := world(t, sim.System{})
	w.Promote(2, pathB, signing.Auto)
	w.Wants.Grant = nil
	turns(t, w, 60)
	revert(w, 2, "d1")
	w.Wants.Grant = &api.Grant{Seq: 2}
	ends(t, w, api.Reverted, pathA, pathA, pathA)
	if w.Started() != 0 {
		t.Error("it was begun")
	}
}

// TestDirectiveRevertWithNowhereToGo: a first system is left for nothing.
func TestDirectiveRevertWithNowhereToGo(t *testing.T) {
	w := sim.New(&sim.System{Path: pathA})
	w.Promote(1, pathA, signing.Auto)
	ends(t, w, api.OK, pathA, pathA, pathA)
	revert(w, 1, "d1")
	ends(t, w, api.OK, pathA, pathA, pathA)
	if last := w.Acks[len(w.Acks)-1]; !strings.Contains(last.Error, "no other system") {
		t.Errorf("told %q", last.Error)
	}
}

// TestDirectiveRevertSurvives: killed or without power at every point of it,
// the host ends where it was led.
func TestDirectiveRevertSurvives(t *testing.T) {
	ready := world(t, sim.System{})
	ready.Promote(2, pathB, signing.Auto)
	ends(t, ready, api.OK, pathB, pathB, pathB)
	revert(ready, 2, "d1")
	for _, power := range []bool{false, true} {
		for at := 1; ; at++ {
			w := ready.Clone()
			w.CrashAt = w.Ops + at
			crashed := false
			j, err := w.Drive(w.Keys.Rules(), 2000, func() {
				crashed = true
				if power {
					w.PowerCycle()
				}
			})
			if !crashed {
				break
			}
			if err != nil || j.State != api.Reverted || w.Current != pathA || w.Profile() != pathA || w.BootEntry != pathA || len(w.Violations) > 0 {
				t.Fatalf("power %v, crash %d: %v %s (%s) on %s, profile %s, boots %s, %q", power, at, err, j.State, j.Error, w.Current, w.Profile(), w.BootEntry, w.Violations)
			}
		}
	}
}

// TestRevertedSystemIsProtected: what a revert would lead to is there, whatever
// came after it.
func TestRevertedSystemIsProtected(t *testing.T) {
	w := world(t, sim.System{})
	w.Add(&sim.System{Path: pathC, Units: []string{"web.service"}})
	w.Promote(2, pathB, signing.Auto)
	ends(t, w, api.OK, pathB, pathB, pathB)
	w.Links = slices.Repeat([]string{""}, len(w.Links)) // nixos-collect-garbage -d
	w.Links[w.Link-1] = pathB
	w.Booted = pathB
	w.Promote(3, pathC, signing.Auto)
	ends(t, w, api.Reverted, pathB, pathB, pathB)
	w.Promote(4, pathB, signing.Auto)
	ends(t, w, api.OK, pathB, pathB, pathB)
	revert(w, 4, "d1")
	ends(t, w, api.Reverted, pathA, pathA, pathA)
}

// TestDirectiveRevertOfAPausedHost waits for the person who paused it.
func TestDirectiveRevertOfAPausedHost(t *testing.T) {
	for _, action := range []signing.Action{signing.Auto, signing.Test, signing.Boot} {
		w := world(t, sim.System{})
		w.Promote(2, pathB, action)
		state := drive(t, w).State
		runs := w.Started()
		w.Pause = &api.Hold{By: "kim", Reason: "disk"}
		revert(w, 2, "d1")
		for range 2 {
			j := drive(t, w)
			if j.State != state || w.Started() != runs || j.Directive == "d1" {
				t.Fatalf("%s: %s, %d runs", action, j.State, w.Started()-runs)
			}
			if said := w.Acks[len(w.Acks)-1].WaitingFor; state != api.Armed && (said == nil || said.Kind != api.WaitPaused) {
				t.Errorf("%s: waiting for %+v", action, said)
			}
		}
		w.Pause = nil
		ends(t, w, api.Reverted, pathA, pathA, pathA)
	}
}

// TestDirectiveRevertIsDrained: nothing is wrong with what runs, so there is
// time for the hooks; one that fails does not stop it.
func TestDirectiveRevertIsDrained(t *testing.T) {
	for _, fails := range []int{0, 1} {
		w := world(t, sim.System{})
		w.Promote(2, pathB, signing.Auto)
		endsBy(t, w, hooked(w), api.OK, pathB)
		w.Hooks, w.HookFails[effect.HookPreSwitch] = nil, fails
		revert(w, 2, "d1")
		endsBy(t, w, hooked(w), api.Reverted, pathA)
		if !slices.Equal(w.Hooks, []string{"pre_switch", "post_switch"}) {
			t.Errorf("hooks %q", w.Hooks)
		}
	}
}

// TestJournalWithAnUnknownPhase is of a newer agent.
func TestJournalWithAnUnknownPhase(t *testing.T) {
	w := world(t, sim.System{})
	w.Journal = []byte(strings.Replace(string(w.Journal), `"phase":"done"`, `"phase":"kexec"`, 1))
	if _, err := w.Drive(w.Keys.Rules(), 10, nil); err == nil || !strings.Contains(err.Error(), "kexec") {
		t.Fatal(err)
	}
	if s := w.Acks[len(w.Acks)-1]; s.State != api.Failed || !strings.Contains(s.Error, "newer narwharf") {
		t.Errorf("%+v", s)
	}
}

// TestDirectivesAreLimited: a server in hostile hands that asks for the way back and for another try, in
// turn and without end, leads a host to and fro three times and no more: the boot entry, too. The next
// release begins anew.
func TestDirectivesAreLimited(t *testing.T) {
	for _, numbered := range []bool{true, false} {
		for _, action := range []signing.Action{signing.Auto, signing.Boot, signing.Test} {
			w := world(t, sim.System{})
			rules := w.Keys.Rules()
			rules.Retries = 2
			w.Promote(2, pathB, action)
			drive(t, w)
			flap := func(seq int64, rounds int) (changes int) {
				before := w.Current + w.BootEntry
				for i := range rounds {
					d := &api.Directive{Type: []string{"revert", "retry"}[i%2], Seq: seq, ID: fmt.Sprintf("%d-%d", seq, i)}
					if numbered {
						d.Serial = int64(i + 1)
					}
					w.Wants.Directive = d
					if _, err := w.Drive(rules, 2000, nil); err != nil || len(w.Violations) > 0 {
						t.Fatal(err, w.Violations)
					}
					if now := w.Current + w.BootEntry; now != before {
						before = now
						changes++
					}
				}
				return changes
			}
			if changes := flap(2, 20); changes > 5 || w.Current != pathA || w.BootEntry != pathA {
				t.Errorf("%s, numbered %v: %d changes, on %s, boots %s", action, numbered, changes, w.Current, w.BootEntry)
			}
			s := w.Acks[len(w.Acks)-1]
			if s.State != api.Reverted || !strings.Contains(s.Error, "directives.retries") || s.Directives == nil || *s.Directives != (api.Directives{Obey: "limited"}) {
				t.Errorf("%s, numbered %v: it says %s, %q, %+v", action, numbered, s.State, s.Error, s.Directives)
			}
			w.Wants.Directive = nil
			w.Promote(3, pathB, signing.Auto) // denied, until somebody who is meant says retry
			drive(t, w)
			w.Wants.Directive = &api.Directive{Type: "retry", Seq: 3, ID: "meant", Serial: 1}
			if j := ends(t, w, api.OK, pathB, pathB, pathB); j.Error != "" {
				t.Errorf("then %q", j.Error)
			}
		}
	}
}

// TestDirectivesNever: a host that obeys none stays where it is, and says so.
func TestDirectivesNever(t *testing.T) {
	w := world(t, sim.System{})
	w.Promote(2, pathB, signing.Auto)
	ends(t, w, api.OK, pathB, pathB, pathB)
	rules := w.Keys.Rules()
	rules.Directives = desired.ObeyNever
	for _, kind := range []string{"revert", "retry"} {
		w.Wants.Directive = &api.Directive{Type: kind, Seq: 2, ID: kind, Serial: 1}
		if j, err := w.Drive(rules, 2000, nil); err != nil || j.State != api.OK || w.Current != pathB || w.BootEntry != pathB {
			t.Fatalf("%s: %v, %s on %s", kind, err, j.State, w.Current)
		}
		s := w.Acks[len(w.Acks)-1]
		if s.DirectiveSerial != 0 || !strings.Contains(s.Error, "directives.obey") || s.Directives == nil || s.Directives.Obey != "never" || s.Directives.RetriesLeft != 0 {
			t.Errorf("%s: it says %q, %+v, obeyed %d", kind, s.Error, s.Directives, s.DirectiveSerial)
		}
	}
}

// TestRevertNeedsAnActivation: after a way back there is none further back before another system was
// activated and found well, whatever releases name what runs.
func TestRevertNeedsAnActivation(t *testing.T) {
	w := world(t, sim.System{})
	w.Add(&sim.System{Path: pathC})
	w.Promote(2, pathB, signing.Auto)
	ends(t, w, api.OK, pathB, pathB, pathB)
	w.Promote(3, pathC, signing.Auto)
	ends(t, w, api.OK, pathC, pathC, pathC)
	revert(w, 3, "d1")
	ends(t, w, api.Reverted, pathB, pathB, pathB)
	w.Promote(4, pathB, signing.Auto) // as it is
	ends(t, w, api.OK, pathB, pathB, pathB)
	revert(w, 4, "d2")
	ends(t, w, api.OK, pathB, pathB, pathB)
	if s := w.Acks[len(w.Acks)-1]; !strings.Contains(s.Error, "no other system") {
		t.Errorf("told %q", s.Error)
	}
}
