package nixos_test

import (
	"strings"
	"testing"

	"narwharf/hooks/api"
	"narwharf/nixos/journal"
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
