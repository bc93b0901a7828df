package nixos_test

import (
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
		t.Errorf("the server knows %+v", w.Acks)
	}
}
