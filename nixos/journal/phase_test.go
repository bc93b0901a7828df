package journal

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
	Prepare, Realise, Retry, Ready, Inspect, Announce, Switch, Dry, Observe, Confirm,
	Witness, SetProfile, SetBoot, Protect, ResetProfile, ResetBoot, SwitchBack, Done,
}

// TestEarlierAgents: every phase is read as it was, and an agent of the first
// build finds one that it knows or a version that it does not.
func TestEarlierAgents(t *testing.T) {
	for _, phase := range Phases {
		j := &Journal{Version: Version, State: api.Armed, Attempt: &Attempt{ID: "a", Phase: phase, Outcome: api.Armed}}
		text := j.Text()
		var first struct {
			Version int
			Attempt struct{ Phase Phase }
		}
		if err := json.Unmarshal(text, &first); err != nil {
			t.Fatal(err)
		}
		if first.Version == 1 != slices.Contains(firstPhases, first.Attempt.Phase) || first.Version > Version {
			t.Errorf("%s is written as %s in version %d", phase, first.Attempt.Phase, first.Version)
		}
		if j.Attempt.Phase != phase || j.Attempt.Exact != "" {
			t.Errorf("%s: writing makes %+v of it", phase, j.Attempt)
		}
		back, err := Parse(text)
		if err != nil || back.Attempt.Phase != phase || back.Attempt.Exact != "" {
			t.Errorf("%s is read as %+v, %v", phase, back, err)
		}
	}
	// An older agent went on from the nearest phase: it wrote no exact one, or
	// left behind one that is over.
	j := &Journal{Attempt: &Attempt{Phase: Reboot}}
	over := strings.Replace(string(j.Text()), `"phase":"done"`, `"phase":"observe"`, 1)
	if back, err := Parse([]byte(over)); err != nil || back.Attempt.Phase != Observe {
		t.Errorf("%+v, %v", back, err)
	}
	// One of an agent after this one.
	later := strings.Replace(string(j.Text()), `"exact_phase":"reboot"`, `"exact_phase":"kexec"`, 1)
	if back, err := Parse([]byte(later)); err != nil || back.Attempt.Phase != Done {
		t.Errorf("%+v, %v", back, err)
	}
	later = strings.Replace(later, `"phase":"done"`, `"phase":"kexec"`, 1)
	if _, err := Parse([]byte(later)); !errors.Is(err, ErrNewer) {
		t.Errorf("a phase that nobody knows: %v", err)
	}
}
