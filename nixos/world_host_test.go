package nixos_test

import (
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/journal"
	"narwharf/nixos/machine"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// promoteLast is a release whose entry says that it may be the host's last.
func promoteLast(w *sim.World, seq int64, path string, action signing.Action) {
	w.Promote(seq, path, action)
	w.Wants.Pointer = w.Keys.PointerOf(signing.Head{Origin: sim.Origin, Channel: sim.Channel, Seq: seq, Created: sim.Created},
		signing.Entry{Target: signing.Everyone, StorePath: path, Closure: sim.Manifest(path).Digest(), System: sim.Machine, Action: action, Last: true})
}

// TestWithoutAgentInSim: a system without an agent is refused before anything is switched or
// armed, whatever starts it, unless its entry says that it is meant.
func TestWithoutAgentInSim(t *testing.T) {
	for _, c := range []struct {
		action signing.Action
		b      sim.System
		meant  api.State
	}{
		{signing.Auto, sim.System{}, api.OK},
		{signing.Auto, sim.System{Reboot: []string{"kernel"}}, api.Armed},
		{signing.Switch, sim.System{}, api.OK},
		{signing.Boot, sim.System{}, api.Armed},
		{signing.Reboot, sim.System{}, api.Armed},
		{signing.Test, sim.System{}, api.Testing},
	} {
		t.Run(string(c.action), func(t *testing.T) {
			c.b.NoAgent = "it has no unit narwharf.service"
			w := world(t, c.b)
			w.Promote(2, pathB, c.action)
			runs := w.Started()
			j := ends(t, w, api.Rejected, pathA, pathA, pathA)
			if w.Started() != runs || !strings.Contains(j.Error, "it has no unit narwharf.service") || !strings.Contains(j.Error, "--last") {
				t.Errorf("%d runs; %q", w.Started()-runs, j.Error)
			}
			promoteLast(w, 3, pathB, c.action)
			if j := drive(t, w); j.State != c.meant {
				t.Errorf("where it is meant: %s (%s)", j.State, j.Error)
			}
		})
	}
	t.Run("dry-activate", func(t *testing.T) {
		w := world(t, sim.System{NoAgent: "it has no unit narwharf.service"})
		w.Promote(2, pathB, signing.DryActivate)
		ends(t, w, api.DryRunDone, pathA, pathA, pathA)
	})
}

// TestProfileInSim: a profile that is no link to a generation is in nobody's way. The status
// says what is wrong with it, and the next commit puts it right.
func TestProfileInSim(t *testing.T) {
	const fault = "system is a link to /nix/store/x, and not to one of its generations"
	last := func(w *sim.World) *api.Status { return w.Acks[len(w.Acks)-1] }
	for _, b := range []sim.System{{}, {TestExit: 2}, {BootExit: 1}} {
		w := world(t, b)
		w.ProfileFault = fault
		w.Clock += 3_600_000 // the next report
		ends(t, w, api.OK, pathA, pathA, pathA)
		if last(w).Error != fault {
			t.Errorf("the server was told %q", last(w).Error)
		}
		w.Promote(2, pathB, signing.Auto)
		if b.TestExit+b.BootExit == 0 {
			ends(t, w, api.OK, pathB, pathB, pathB)
		} else {
			ends(t, w, api.Reverted, pathA, pathA, pathA)
		}
		if healed := w.ProfileFault == ""; healed != (b.TestExit == 0) {
			t.Errorf("exit %d, %d: the profile is %q", b.TestExit, b.BootExit, w.ProfileFault)
		}
	}
	w := world(t, sim.System{})
	w.ProfileFault, w.ProfileGone = "system is the generation system-1-link, which is gone", true
	j := drive(t, w)
	if j.State != api.Drifted || !strings.Contains(last(w).Error, "which is gone") {
		t.Errorf("without its generation: %s, %q", j.State, last(w).Error)
	}
	w.Promote(2, pathB, signing.Auto)
	if j := ends(t, w, api.OK, pathB, pathB, pathB); j.Attempt.Phase != journal.Done || last(w).Error != "" {
		t.Errorf("healed, and the server was told %q", last(w).Error)
	}
}

var pathX = sim.Path("b-x")

// specialised is a world whose B has the specialisation x.
func specialised(t *testing.T, b, x sim.System) *sim.World {
	t.Helper()
	b.Specialisations = map[string]string{"x": pathX}
	w := world(t, b)
	x.Path = pathX
	w.Add(&x)
	return w
}

// withX is drive of a host whose configuration asks for the specialisation x.
func withX(w *sim.World) machine.Rules {
	rules := w.Keys.Rules()
	rules.Specialisation = "x"
	return rules
}

// TestSpecialisationInSim: what a person chose of a system is that system, and what the
// configuration asks for is switched to.
func TestSpecialisationInSim(t *testing.T) {
	last := func(w *sim.World) *api.Status { return w.Acks[len(w.Acks)-1] }
	t.Run("switched to by hand", func(t *testing.T) {
		w := specialised(t, sim.System{}, sim.System{})
		w.Promote(2, pathB, signing.Auto)
		ends(t, w, api.OK, pathB, pathB, pathB)
		w.Valid[pathX], w.Current = true, pathX
		ends(t, w, api.OK, pathX, pathB, pathB)
		if s := last(w); s.Current != pathB || s.Error != "" {
			t.Errorf("told %s, %q", s.Current, s.Error)
		}
		// A release that fails leads back to it, one that does not away from it.
		w.Add(&sim.System{Path: pathC, TestExit: 2})
		w.Promote(3, pathC, signing.Auto)
		ends(t, w, api.Reverted, pathX, pathB, pathB)
		w.Systems[pathC].TestExit = 0
		w.Wants.Directive = &api.Directive{Type: "retry", Seq: 3, ID: "r1"}
		ends(t, w, api.OK, pathC, pathC, pathC)
	})
	t.Run("booted", func(t *testing.T) {
		w := specialised(t, sim.System{Reboot: []string{"kernel"}}, sim.System{})
		w.Promote(2, pathB, signing.Boot)
		ends(t, w, api.Armed, pathA, pathB, pathB)
		w.Valid[pathX] = true
		w.PowerCycle()
		w.Current, w.Booted = pathX, pathX // chosen in the boot menu
		if j := drive(t, w); j.State != api.OK || last(w).Current != pathB || w.Profile() != pathB {
			t.Errorf("%s (%s), told %s", j.State, j.Error, last(w).Current)
		}
		w.PowerCycle()
		w.Current, w.Booted = pathX, pathX
		if j := drive(t, w); j.State != api.OK || w.Current != pathX {
			t.Errorf("booted again: %s (%s)", j.State, j.Error)
		}
	})
	for _, c := range []struct {
		name    string
		x       sim.System
		state   api.State
		current string
	}{
		{"asked for", sim.System{}, api.OK, pathX},
		{"asked for, and its activation fails", sim.System{TestExit: 2}, api.Reverted, pathA},
		{"asked for, and its checks fail", sim.System{CheckFails: true}, api.Reverted, pathA},
		{"asked for, and its agent is broken", sim.System{AgentBroken: true}, api.Reverted, pathA},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := specialised(t, sim.System{}, c.x)
			w.Valid[pathX] = true
			w.Promote(2, pathB, signing.Auto)
			j := endsBy(t, w, withX(w), c.state, c.current)
			boots := pathA
			if c.state == api.OK {
				boots = pathB
			}
			if w.Profile() != boots || w.BootEntry != boots {
				t.Errorf("%s (%s): profile %s, boots %s", j.State, j.Error, w.Profile(), w.BootEntry)
			}
		})
	}
	t.Run("asked for, and not there", func(t *testing.T) {
		w := world(t, sim.System{})
		w.Promote(2, pathB, signing.Auto)
		endsBy(t, w, withX(w), api.OK, pathB)
		if !strings.Contains(last(w).Error, `has no specialisation "x"`) {
			t.Errorf("told %q", last(w).Error)
		}
	})
}

// TestDriftInSim: a host that somebody else changed is left so, or goes back as by a release.
func TestDriftInSim(t *testing.T) {
	rules := func(w *sim.World) machine.Rules {
		r := w.Keys.Rules()
		r.Drift = 10 * time.Minute
		return r
	}
	for name, change := range map[string]func(w *sim.World){
		"the running system": func(w *sim.World) { w.Current = pathB },
		"the profile":        func(w *sim.World) { w.Links = append(w.Links, pathB); w.Link = len(w.Links) },
		"both":               func(w *sim.World) { w.Current = pathB; w.Links = append(w.Links, pathB); w.Link = len(w.Links) },
		"by a boot": func(w *sim.World) {
			w.BootEntry = pathB
			w.Links = append(w.Links, pathB)
			w.Link = len(w.Links)
			w.PowerCycle()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := world(t, sim.System{})
			w.Valid[pathB] = true
			change(w)
			runs, begin := w.Started(), w.Clock
			if j := drive(t, w); j.State != api.Drifted || w.Started() != runs || !strings.Contains(j.Error, "until the next release") {
				t.Fatalf("left: %s (%s)", j.State, j.Error)
			}
			a := w.Agent(rules(w))
			if err := a.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			for turns := 0; ; turns++ {
				if err := a.Turn(t.Context()); err != nil {
					t.Fatal(err)
				}
				j := a.Journal()
				if w.Started() > runs && w.Clock-begin < 600_000 {
					t.Fatalf("it went back after %d ms", w.Clock-begin)
				}
				if j.State == api.OK && w.Current == pathA && w.Profile() == pathA && w.BootEntry == pathA {
					break
				}
				if j.State == api.Drifted && !strings.Contains(j.Error, "after 10m0s it goes back") {
					t.Fatalf("it says %q", j.Error)
				}
				if turns > 3000 {
					t.Fatalf("%s (%s): %s, %s", j.State, j.Error, w.Current, w.Profile())
				}
			}
			checkTruth(t, w)
		})
	}
	t.Run("a pause and a hold count", func(t *testing.T) {
		w := world(t, sim.System{})
		w.Valid[pathB], w.Current = true, pathB
		w.Pause = &api.Hold{Reason: "mine", By: "kim"}
		a := w.Agent(rules(w))
		if err := a.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for turns := 0; w.Current != pathA; turns++ {
			if turns == 500 {
				w.Pause = nil
			}
			if err := a.Turn(t.Context()); err != nil || turns > 2000 {
				t.Fatal(err, a.Journal().State)
			}
			if w.Pause != nil && w.Current != pathB {
				t.Fatal("it went back while a person had paused it")
			}
		}
	})
	t.Run("what did not pass is no way back", func(t *testing.T) {
		w := world(t, sim.System{TestExit: 2})
		w.Promote(2, pathB, signing.Auto)
		ends(t, w, api.Reverted, pathA, pathA, pathA)
		w.Current = pathB
		runs := w.Started()
		if _, err := w.Drive(rules(w), 500, nil); err != nil {
			t.Fatal(err)
		}
		if w.Started() != runs || w.Current != pathB {
			t.Error("it was tried again")
		}
	})
}
