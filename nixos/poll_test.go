package nixos_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/nixos/effect"
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

// TestAwayIsKept, too, from the second time on.
func TestAwayIsKept(t *testing.T) {
	w := world(t, sim.System{})
	agent := w.Agent(w.Keys.Rules())
	if err := agent.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Down = true
	for i, want := range []string{"", "not reached: connection refused", "not reached: connection refused"} {
		if err := agent.Turn(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := agent.Journal().Refusal; got != want {
			t.Errorf("after %d polls: %q", i+1, got)
		}
	}
	w.Down = false
	if err := agent.Turn(t.Context()); err != nil || agent.Journal().Refusal != "" {
		t.Error(err, agent.Journal().Refusal)
	}
}

// A slowHost takes four minutes for a download. What is asked of it meanwhile
// does not touch the world, which is made for one caller at a time.
type slowHost struct {
	*sim.World
	mu      sync.Mutex
	last    effect.Facts
	loading bool
	reports int
}

func (h *slowHost) Realise(ctx context.Context, p narinfo.Path, root string, closure []signing.Line) error {
	h.set(true)
	time.Sleep(4*time.Minute + 10*time.Second) // between two reports
	h.set(false)
	return h.World.Realise(ctx, p, root, closure)
}

func (h *slowHost) set(loading bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loading = loading
}

func (h *slowHost) Facts(ctx context.Context) (f effect.Facts, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.loading {
		h.last, err = h.World.Facts(ctx)
	}
	return h.last, err
}

func (h *slowHost) Report(ctx context.Context, s *api.Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.loading {
		h.World.Report(ctx, s)
	} else if s.State == api.Staging {
		h.reports++
	}
}

// TestLongDownload: the host says all the time that it is there, since the
// server takes one that is silent for 90 s for gone.
func TestLongDownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world(t, sim.System{})
		w.Promote(2, pathB, signing.Auto)
		h := &slowHost{World: w}
		agent := w.Agent(w.Keys.Rules())
		agent.Host.System, agent.Host.Store, agent.Host.Server = h, h, h
		agent.Stager.Host = agent.Host
		if err := agent.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if agent.Journal().State == api.OK && agent.Journal().Seq == 2 {
				break
			}
			if err := agent.Turn(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if j := agent.Journal(); j.State != api.OK || h.reports < 7 {
			t.Errorf("%s after %d reports of a download that took 4 min", j.State, h.reports)
		}
	})
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

// TestPollsAfterCuts: how long a poll parks is halved where it was cut.
func TestPollsAfterCuts(t *testing.T) {
	for _, c := range []struct {
		name   string
		err    error
		halved bool
	}{
		{"502", &api.Error{Status: 502, Kind: api.Internal, Message: "bad gateway"}, true},
		{"504", &api.Error{Status: 504, Kind: api.Internal, Message: "gateway timeout"}, true},
		{"a cut without a word", io.ErrUnexpectedEOF, true},
		{"a server that stops", &api.Error{Status: 503, Kind: api.Unavailable, Message: "stopping"}, false},
		{"nobody there any more", errLost, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := world(t, sim.System{})
			cut := false
			w.Fail = func(op string) error {
				if op == "desired" && cut {
					cut = false
					return c.err
				}
				return nil
			}
			var before, after int
			polls(t, w, 12, func(i int) {
				switch i {
				case 5:
					before, cut = len(w.Waits), true
				case 7:
					after = len(w.Waits)
				}
			})
			whole, least := 45*time.Second*9/10, 45*time.Second*6/10
			if w.Waits[before-1] < whole {
				t.Fatalf("waits before: %v", w.Waits)
			}
			for _, d := range w.Waits[after:] {
				if (d < least) != c.halved {
					t.Fatalf("waits after: %v", w.Waits[after:])
				}
			}
			// What is new comes at once, and the next poll parks as long as ever.
			w.Fail = nil
			w.Promote(2, pathB, signing.Auto)
			ends(t, w, api.OK, pathB, pathB, pathB)
		})
	}
}
