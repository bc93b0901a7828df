package nixos_test

import (
	"testing"

	"narwharf/hooks/api"
	"narwharf/nixos/journal"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// ends drives and compares the end.
func ends(t *testing.T, w *sim.World, state api.State, current, profile, boots string) *journal.Journal {
	t.Helper()
	j := drive(t, w)
	if j.State != state || w.Current != current || w.Profile() != profile || w.BootEntry != boots {
		t.Fatalf("ended %s (%s) at seq %d: current %s, profile %s, boots %s", j.State, j.Error, j.Seq, w.Current, w.Profile(), w.BootEntry)
	}
	if last := w.Acks[len(w.Acks)-1]; last.State != state {
		t.Fatalf("the server was told %s", last.State)
	}
	return j
}

func TestArmedThenReboot(t *testing.T) {
	w := world(t, sim.System{Reboot: []string{"kernel"}})
	w.Promote(2, pathB, signing.Auto)
	j := ends(t, w, api.Armed, pathA, pathB, pathB)
	if s := w.Acks[len(w.Acks)-1]; !s.NeedReboot || s.NeedRebootFor[0] != "kernel" || s.WaitingFor.Kind != api.WaitReboot {
		t.Errorf("report: %+v", s)
	}
	ends(t, w, api.Armed, pathA, pathB, pathB) // it stays so
	w.PowerCycle()
	j2 := ends(t, w, api.OK, pathB, pathB, pathB)
	if j2.Attempt.ID != j.Attempt.ID || !j2.Attempt.Rebooted || j2.Confirmed != pathB {
		t.Errorf("attempt: %+v", j2.Attempt)
	}
}

func TestArmedThenBadBoot(t *testing.T) {
	w := world(t, sim.System{CheckFails: true})
	w.Promote(2, pathB, signing.Boot)
	ends(t, w, api.Armed, pathA, pathB, pathB)
	w.PowerCycle()
	ends(t, w, api.Reverted, pathA, pathA, pathA)
}

func TestArmedAndFellBack(t *testing.T) {
	w := world(t, sim.System{WontBoot: true})
	w.Promote(2, pathB, signing.Boot)
	ends(t, w, api.Armed, pathA, pathB, pathB)
	w.PowerCycle()
	ends(t, w, api.Reverted, pathA, pathA, pathA)
}

func TestTestIsGoneAfterReboot(t *testing.T) {
	w := world(t, sim.System{})
	w.Promote(2, pathB, signing.Test)
	ends(t, w, api.Testing, pathB, pathA, pathA)
	if s := w.Acks[len(w.Acks)-1]; s.CurrentGeneration == s.BootGeneration {
		t.Errorf("generations %d and %d", s.CurrentGeneration, s.BootGeneration)
	}
	w.PowerCycle()
	ends(t, w, api.TestOver, pathA, pathA, pathA)
	runs := w.Started()
	ends(t, w, api.TestOver, pathA, pathA, pathA)
	w.PowerCycle()
	ends(t, w, api.TestOver, pathA, pathA, pathA)
	if w.Started() != runs {
		t.Error("the same seq was activated again")
	}
	w.Promote(3, pathB, signing.Test)
	ends(t, w, api.Testing, pathB, pathA, pathA)
	w.Promote(4, pathB, signing.Switch)
	ends(t, w, api.OK, pathB, pathB, pathB)
}

// TestBadCommitAfterTest: what ran by a test before is no place to boot into.
func TestBadCommitAfterTest(t *testing.T) {
	w := world(t, sim.System{})
	w.Add(&sim.System{Path: pathC, BootExit: 1})
	w.Promote(2, pathB, signing.Test)
	ends(t, w, api.Testing, pathB, pathA, pathA)
	w.Promote(3, pathC, signing.Switch)
	ends(t, w, api.Reverted, pathB, pathA, pathA)
}

func TestABA(t *testing.T) {
	w := world(t, sim.System{})
	w.Promote(2, pathB, signing.Auto)
	ends(t, w, api.OK, pathB, pathB, pathB)
	w.Promote(3, pathA, signing.Auto)
	ends(t, w, api.OK, pathA, pathA, pathA)
	w.Promote(4, pathB, signing.Auto)
	j := ends(t, w, api.OK, pathB, pathB, pathB)
	if len(w.Links) != 4 || j.Seq != 4 {
		t.Errorf("generations %q, seq %d", w.Links, j.Seq)
	}
}

func TestDenylist(t *testing.T) {
	w := world(t, sim.System{CheckFails: true})
	w.Promote(2, pathB, signing.Auto)
	ends(t, w, api.Reverted, pathA, pathA, pathA)
	runs := w.Started()
	w.Promote(3, pathB, signing.Auto) // the same entry's bytes
	j := ends(t, w, api.Reverted, pathA, pathA, pathA)
	if w.Started() != runs || j.Seq != 3 || j.WaitingFor == nil || j.WaitingFor.Kind != api.WaitRetry {
		t.Fatalf("seq %d, waiting for %+v", j.Seq, j.WaitingFor)
	}
	w.Promote(4, pathA, signing.Auto)
	ends(t, w, api.OK, pathA, pathA, pathA)
	w.Promote(5, pathB, signing.Auto)
	ends(t, w, api.Reverted, pathA, pathA, pathA)
	w.Systems[pathB].CheckFails = false
	w.Wants.Directive = &api.Directive{Type: "retry", Seq: 5, ID: "r1"}
	ends(t, w, api.OK, pathB, pathB, pathB)
}

func TestRetryIsObeyedOnce(t *testing.T) {
	w := world(t, sim.System{CheckFails: true})
	w.Promote(2, pathB, signing.Auto)
	ends(t, w, api.Reverted, pathA, pathA, pathA)
	w.Wants.Directive = &api.Directive{Type: "retry", Seq: 2, ID: "r1"}
	ends(t, w, api.Reverted, pathA, pathA, pathA)
	runs := w.Started()
	ends(t, w, api.Reverted, pathA, pathA, pathA)
	if w.Started() != runs {
		t.Error("it was obeyed twice")
	}
}

func TestDrift(t *testing.T) {
	w := world(t, sim.System{})
	w.Add(&sim.System{Path: pathC})
	w.Promote(2, pathB, signing.Auto)
	ends(t, w, api.OK, pathB, pathB, pathB)
	w.HumanSwitch(pathC, true)
	ends(t, w, api.Drifted, pathC, pathC, pathC)
	ends(t, w, api.Drifted, pathC, pathC, pathC)
	w.HumanSwitch(pathB, true)
	ends(t, w, api.OK, pathB, pathB, pathB)
	w.HumanSwitch(pathC, false)
	ends(t, w, api.Drifted, pathC, pathB, pathB)
	w.Promote(3, pathA, signing.Auto)
	ends(t, w, api.OK, pathA, pathA, pathA)
}
