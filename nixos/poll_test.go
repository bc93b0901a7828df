package nixos_test

import (
	"errors"
	"strings"
	"testing"

	"narwharf/hooks/api"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// polls lets an agent that has come to rest poll so often.
func polls(t *testing.T, w *sim.World, n int, between func(i int)) {
	t.Helper()
	agent := w.Agent(w.Keys.Rules())
	if err := agent.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		between(i)
		if err := agent.Turn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	checkTruth(t, w)
}

// TestServerThatForgot: a server that was away may come back from a backup,
// without the report that it took. It is said again.
func TestServerThatForgot(t *testing.T) {
	w := world(t, sim.System{})
	w.Promote(2, pathB, signing.Auto)
	ends(t, w, api.OK, pathB, pathB, pathB)
	had := 0
	polls(t, w, 40, func(i int) {
		switch i {
		case 10:
			had = len(w.Acks)
		case 20:
			if len(w.Acks) != had {
				t.Fatalf("%d reports, and nothing new", len(w.Acks)-had)
			}
			w.Down = true
		case 25:
			w.Down, w.Acks = false, nil
		}
	})
	if len(w.Acks) != 1 || w.Acks[0].State != api.OK || w.Acks[0].Seq != 2 || len(w.Acks[0].Transitions) > 0 {
		t.Errorf("the server knows %+v", w.Acks)
	}
}

// TestServerThatForgotUnseen: also where nobody saw it go.
func TestServerThatForgotUnseen(t *testing.T) {
	w := world(t, sim.System{})
	polls(t, w, 10+3600/40, func(i int) {
		if i == 5 {
			w.Acks = nil
		}
	})
	if len(w.Acks) != 1 || w.Acks[0].State != api.OK {
		t.Errorf("the server knows %d reports, at last %+v", len(w.Acks), w.Statuses[len(w.Statuses)-1])
	}
}

// TestServerThatLostItsTokens refuses whoever asks: no fault of a new system.
func TestServerThatLostItsTokens(t *testing.T) {
	w := world(t, sim.System{})
	w.WitnessAlive = false
	w.Promote(2, pathB, signing.Auto)
	w.Fail = func(op string) error {
		if op == "start test" {
			w.Refuses = true
		}
		return nil
	}
	_, _ = w.Drive(w.Keys.Rules(), 300, nil) // nobody hears how it ends
	w.Fail = nil
	if s := w.Statuses[len(w.Statuses)-1]; s.State != api.OK || !s.Unconfirmed || w.Current != pathB || w.Profile() != pathB {
		t.Fatalf("%+v", s)
	}
	checkTruth(t, w)
	w.Refuses = false
	if j := ends(t, w, api.OK, pathB, pathB, pathB); j.Refusal != "" {
		t.Error(j.Refusal)
	}
}

// TestRefusalIsKept for people on the host, until there is an answer.
func TestRefusalIsKept(t *testing.T) {
	w := world(t, sim.System{})
	agent := w.Agent(w.Keys.Rules())
	if err := agent.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Refuses = true
	for range 3 {
		if err := agent.Turn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if agent.Journal().Refusal == "" {
		t.Error("nothing is kept")
	}
	w.Refuses = false
	if err := agent.Turn(t.Context()); err != nil || agent.Journal().Refusal != "" {
		t.Error(err, agent.Journal().Refusal)
	}
}

// TestRefusedAndThenAway: the server refuses the new agent, and then nobody
// answers: that is decided as if it had been away all the time.
func TestRefusedAndThenAway(t *testing.T) {
	for _, alive := range []bool{true, false} {
		w := world(t, sim.System{Refused: true})
		w.WitnessAlive = alive
		w.Promote(2, pathB, signing.Auto)
		lost := false
		w.Fail = func(op string) error {
			if op == "probe done" || op == "probe" {
				lost = w.Clock > w.SwitchedAt+70_000
			}
			if op == "report now" && lost {
				return errLost
			}
			return nil
		}
		state, current := api.OK, pathB
		if !alive {
			state, current = api.Reverted, pathA
		}
		if j, err := w.Drive(w.Keys.Rules(), 600, nil); err != nil || j.State != state || w.Current != current {
			t.Fatalf("alive %v: %v %s (%s)", alive, err, j.State, j.Error)
		}
		checkTruth(t, w)
	}
}

var errLost = errors.New("lost")

// TestFullDiskIsSaid: without a journal nothing is done, and the server is told
// why.
func TestFullDiskIsSaid(t *testing.T) {
	w := world(t, sim.System{})
	w.Promote(2, pathB, signing.Auto)
	saves := 0
	w.Fail = func(op string) error {
		if op == "save" {
			if saves++; saves > 1 { // it fills up once the agent runs
				return errors.New("no space left on device")
			}
		}
		return nil
	}
	s := turns(t, w, 40)
	if s.State != api.OK || s.Seq != 1 || !strings.Contains(s.Error, "no space left") || w.Started() != 0 || len(w.Acks) == 0 {
		t.Fatalf("%+v", s)
	}
	w.Fail = nil
	ends(t, w, api.OK, pathB, pathB, pathB)
	if s := w.Acks[len(w.Acks)-1]; s.Error != "" {
		t.Errorf("still %q", s.Error)
	}
}
