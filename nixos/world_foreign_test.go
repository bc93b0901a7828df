package nixos_test

import (
	"slices"
	"strings"
	"testing"

	"narwharf/hooks/api"
	"narwharf/nixos"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// TestForeignPathsInSim: a path that was here before, with other bytes.
func TestForeignPathsInSim(t *testing.T) {
	for _, c := range []struct {
		name    string
		foreign nixos.Foreign
		built   bool
		state   api.State
		current string
	}{
		{"signed, built here", nixos.ForeignSigned, true, api.OK, pathB},
		{"signed, from nobody", nixos.ForeignSigned, false, api.Rejected, pathA},
		{"exact, built here", nixos.ForeignExact, true, api.Rejected, pathA},
		{"exact, from nobody", nixos.ForeignExact, false, api.Rejected, pathA},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := world(t, sim.System{})
			w.Foreign = c.foreign
			w.Valid[pathB], w.Other[pathB], w.Built[pathB], w.Roots["somebody's"] = true, true, c.built, pathB
			w.Promote(2, pathB, signing.Auto)
			j := ends(t, w, c.state, c.current, c.current, c.current)
			last := w.Acks[len(w.Acks)-1]
			if !slices.Equal(last.Differs, []string{pathB}) {
				t.Errorf("differs: %q", last.Differs)
			}
			if c.state == api.OK {
				return
			}
			runs, statuses := w.Started(), len(w.Statuses)
			ends(t, w, api.Rejected, pathA, pathA, pathA)
			if !strings.Contains(j.Error, pathB) || w.Started() != runs || len(w.Statuses) > statuses+1 {
				t.Errorf("it goes on trying, or has no words: %q", j.Error)
			}
			// Somebody deletes it, and says retry.
			w.Other[pathB] = false
			w.Wants.Directive = &api.Directive{Type: "retry", Seq: 2, ID: "r1"}
			ends(t, w, api.OK, pathB, pathB, pathB)
		})
	}
}

// TestWrongBytesAreDiscardedInSim: what came with other bytes goes before
// anything is reported, also where the agent dies in the middle of it.
func TestWrongBytesAreDiscardedInSim(t *testing.T) {
	for at := 0; ; at++ {
		w := world(t, sim.System{WrongBytes: 2})
		w.Promote(2, pathB, signing.Auto)
		w.CrashAt = w.Ops + at
		crashed := at == 0
		j, err := w.Drive(w.Keys.Rules(), 2000, func() { crashed = true })
		if err != nil || j.State != api.OK || w.Other[pathB] {
			t.Fatalf("crash %d: %v, %+v", at, err, j)
		}
		checkTruth(t, w)
		said := slices.ContainsFunc(w.Statuses, func(s *api.Status) bool {
			return s.State == api.StageFailed && strings.Contains(s.Error, "were deleted")
		})
		if !said {
			t.Fatalf("crash %d: nobody was told", at)
		}
		if !crashed {
			return
		}
	}
}
