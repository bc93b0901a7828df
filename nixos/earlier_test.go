package nixos

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"narwharf/hooks/api"
)

// firstPhases are what the agents of 924caa8 know.
var firstPhases = []Phase{
	PhasePrepare, PhaseRealise, PhaseRetry, PhaseReady, PhaseInspect, PhaseAnnounce, PhaseSwitch, PhaseDry, PhaseObserve, PhaseConfirm,
	PhaseWitness, PhaseProfile, PhaseBoot, PhaseKeep, PhaseUnprofile, PhaseUnboot, PhaseUnswitch, PhaseDone,
}

// TestEarlierAgents: every phase is read as it was, and an agent of the first
// build finds one that it knows or a version that it does not.
func TestEarlierAgents(t *testing.T) {
	for _, phase := range phases {
		j := &Journal{Version: JournalVersion, State: api.Armed, Attempt: &Attempt{ID: "a", Phase: phase, Outcome: api.Armed}}
		text := j.text()
		var first struct {
			Version int
			Attempt struct{ Phase Phase }
		}
		if err := json.Unmarshal(text, &first); err != nil {
			t.Fatal(err)
		}
		if first.Version == 1 != slices.Contains(firstPhases, first.Attempt.Phase) || first.Version > JournalVersion {
			t.Errorf("%s is written as %s in version %d", phase, first.Attempt.Phase, first.Version)
		}
		if j.Attempt.Phase != phase || j.Attempt.Exact != "" {
			t.Errorf("%s: writing makes %+v of it", phase, j.Attempt)
		}
		back, err := parseJournal(text)
		if err != nil || back.Attempt.Phase != phase || back.Attempt.Exact != "" {
			t.Errorf("%s is read as %+v, %v", phase, back, err)
		}
	}
	// An older agent went on from the nearest phase: it wrote no exact one, or
	// left behind one that is over.
	j := &Journal{Attempt: &Attempt{Phase: PhaseReboot}}
	over := strings.Replace(string(j.text()), `"phase":"done"`, `"phase":"observe"`, 1)
	if back, err := parseJournal([]byte(over)); err != nil || back.Attempt.Phase != PhaseObserve {
		t.Errorf("%+v, %v", back, err)
	}
	// One of an agent after this one.
	later := strings.Replace(string(j.text()), `"exact_phase":"reboot"`, `"exact_phase":"kexec"`, 1)
	if back, err := parseJournal([]byte(later)); err != nil || back.Attempt.Phase != PhaseDone {
		t.Errorf("%+v, %v", back, err)
	}
	later = strings.Replace(later, `"phase":"done"`, `"phase":"kexec"`, 1)
	if _, err := parseJournal([]byte(later)); !errors.Is(err, ErrNewerJournal) {
		t.Errorf("a phase that nobody knows: %v", err)
	}
}
