package nixos_test

import (
	"slices"
	"strings"
	"testing"

	"narwharf/hooks/api"
	"narwharf/nixos"
	"narwharf/nixos/effect"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// leased is a release whose grant was heard, while something on the host kept
// it from being used.
func leased(t *testing.T, lease int64) *sim.World {
	t.Helper()
	w := world(t, sim.System{})
	w.Promote(2, pathB, signing.Auto)
	w.Wants.Grant.Lease = lease
	w.Pause = &api.Hold{Reason: "disk", By: "root"}
	if s := turns(t, w, 20); s.State != api.WaitingState || s.WaitingFor.Kind != api.WaitPaused {
		t.Fatalf("%+v", s)
	}
	return w
}

func TestLeaseOfAGrant(t *testing.T) {
	waited := func(w *sim.World) bool {
		return slices.ContainsFunc(w.Statuses, func(s *api.Status) bool {
			return s.WaitingFor != nil && s.WaitingFor.Kind == api.WaitWave && strings.Contains(s.WaitingFor.Detail, "lease")
		})
	}
	t.Run("in time", func(t *testing.T) {
		w := leased(t, 1_000_000)
		w.Pause = nil
		ends(t, w, api.OK, pathB, pathB, pathB)
		if waited(w) {
			t.Error("a good lease was thrown away")
		}
	})
	t.Run("over, and granted again", func(t *testing.T) {
		w := leased(t, 60)
		w.Clock += 61_000
		w.Pause = nil
		ends(t, w, api.OK, pathB, pathB, pathB)
		if !waited(w) {
			t.Error("the old grant was used")
		}
	})
	t.Run("over, and the server is away", func(t *testing.T) {
		w := leased(t, 60)
		w.Clock += 61_000
		w.Pause, w.Down = nil, true
		if s := turns(t, w, 60); s.State != api.WaitingState || w.Started() != 0 {
			t.Fatalf("%+v, %d runs", s, w.Started())
		}
		w.Down = false
		ends(t, w, api.OK, pathB, pathB, pathB)
	})
	t.Run("over, and taken back", func(t *testing.T) {
		w := leased(t, 60)
		w.Clock += 61_000
		w.Pause = nil
		w.Wants.Grant, w.Wants.WaitingFor = nil, &api.Waiting{Kind: api.WaitSlot}
		if s := turns(t, w, 60); s.WaitingFor == nil || s.WaitingFor.Kind != api.WaitSlot || w.Started() != 0 {
			t.Fatalf("%+v, %d runs", s, w.Started())
		}
	})
	t.Run("a boot ends it", func(t *testing.T) {
		w := leased(t, 900)
		w.Pause, w.Down = nil, true
		w.PowerCycle()
		if s := turns(t, w, 60); s.State != api.WaitingState || w.Started() != 0 {
			t.Fatalf("%+v, %d runs", s, w.Started())
		}
		w.Down = false
		ends(t, w, api.OK, pathB, pathB, pathB)
	})
	t.Run("none is said", func(t *testing.T) {
		w := leased(t, 0)
		w.Clock += 1_000_000_000
		w.Pause = nil
		ends(t, w, api.OK, pathB, pathB, pathB)
	})
}

func TestMinAgent(t *testing.T) {
	for _, c := range []struct {
		agent, least string
		waits        bool
	}{
		{"0.5.0", "", false}, {"0.5.0", "0.5.0", false}, {"v0.5.1", "0.5", false}, {"0.5.1-3-gabcdef", "0.5.1", false}, {"1.0", "0.9.9", false},
		{"0.5.0", "0.5.1", true}, {"0.5", "v1.0.0", true}, {"0.9.9", "0.10.0", true}, {"0.5.0", "new", true}, {"dev", "9.9", false},
	} {
		t.Run(c.agent+" for "+c.least, func(t *testing.T) {
			w := world(t, sim.System{})
			w.Promote(2, pathB, signing.Auto)
			w.Wants.MinAgent = c.least
			rules := w.Keys.Rules()
			rules.Agent = c.agent
			j, err := w.Drive(rules, 300, nil)
			if !c.waits {
				if err != nil || j.State != api.OK {
					t.Fatal(err, j)
				}
				return
			}
			s := w.Statuses[len(w.Statuses)-1]
			if err == nil || s.State != api.WaitingState || !strings.Contains(s.WaitingFor.Detail, c.least) || w.Started() != 0 {
				t.Fatalf("%+v, %d runs", s, w.Started())
			}
			w.Wants.MinAgent = ""
			ends(t, w, api.OK, pathB, pathB, pathB)
		})
	}
}

func TestManifestOfAnotherStore(t *testing.T) {
	w := world(t, sim.System{})
	stager := nixos.Stager{Host: w.Host(), StoreDir: "/other/store", Foreign: nixos.ForeignSigned}
	m := sim.Manifest(pathB)
	ev := stager.Prepare(t.Context(), effect.Prepare{Closure: m.Digest(), Root: strings.Replace(pathB, sim.StoreDir, "/other/store", 1)}, "")
	if !ev.Reject || !strings.Contains(ev.Err, "/other/store") || !strings.Contains(ev.Err, sim.StoreDir) {
		t.Errorf("%+v", ev)
	}
}

// TestTransitionsUntilTold: while nobody hears it a host remembers all arrows,
// and says each once when somebody does.
func TestTransitionsUntilTold(t *testing.T) {
	w := world(t, sim.System{})
	w.Promote(2, pathB, signing.Auto)
	w.Fail = func(op string) error {
		if op == "start test" { // the server goes once it has granted it
			w.Down = true
		}
		return nil
	}
	rules := w.Keys.Rules()
	agent := w.Agent(rules)
	turn := func(until func() bool) {
		t.Helper()
		for range 2000 {
			if err := agent.Turn(t.Context()); err != nil {
				t.Fatal(err)
			}
			if until() {
				return
			}
		}
		t.Fatal("it never came")
	}
	if err := agent.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	turn(func() bool { return agent.Journal().State == api.OK })
	heard := len(w.Acks)
	w.Down, w.Fail = false, nil
	w.HumanSwitch(pathA, false) // another state: a report
	turn(func() bool { return agent.Journal().State == api.Drifted && len(w.Acks) > heard })
	var told []api.State
	for _, s := range w.Acks {
		if s.Seq == 2 {
			for _, tr := range s.Transitions {
				told = append(told, tr.State)
			}
		}
	}
	want := []api.State{api.Verifying, api.Staging, api.Staged, api.Draining, api.Activating, api.Probation, api.Committing, api.OK, api.Drifted}
	if !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
	if n := len(agent.Journal().Attempt.Transitions); n != len(want) {
		t.Errorf("the journal has %d", n)
	}
}

// A host whose grant was taken back says which it had, until it has that again. Once it has begun
// it says nothing of that: the grant was used.
func TestLetsGo(t *testing.T) {
	w := leased(t, 1_000_000)
	d := *w.Wants
	d.Grant, d.WaitingFor = nil, &api.Waiting{Kind: api.WaitWave}
	granted := w.Wants
	w.Wants = &d
	if s := turns(t, w, 20); s.LetGo != "2" {
		t.Fatalf("it says that it let go of %q", s.LetGo)
	}
	w.Wants = granted
	if s := turns(t, w, 20); s.LetGo != "" {
		t.Fatalf("it has it again, and says that it let go of %q", s.LetGo)
	}
	w.Pause = nil
	ends(t, w, api.OK, pathB, pathB, pathB)
	if s := w.Statuses[len(w.Statuses)-1]; s.LetGo != "" {
		t.Errorf("it is %s and says that it let go of %q", s.State, s.LetGo)
	}
}
