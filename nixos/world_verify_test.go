package nixos_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// wants shows the host a pointer that is out of the ordinary.
func wants(w *sim.World, p *signing.Pointer, seq int64) {
	w.Wants = &api.Desired{Channel: sim.Channel, Seq: seq, Pointer: p, Grant: &api.Grant{Seq: seq}}
}

func head(seq int64) signing.Head {
	return signing.Head{Origin: sim.Origin, Channel: sim.Channel, Seq: seq, Created: time.Unix(1_700_000_000, 0).UTC()}
}

func entryB() signing.Entry {
	return signing.Entry{Target: signing.Everyone, StorePath: pathB, Closure: sim.Manifest(pathB).Digest(), System: sim.Machine, Action: signing.Auto}
}

func TestRefusals(t *testing.T) {
	other := sim.NewPromoter()
	for _, c := range []struct {
		name  string
		show  func(w *sim.World) (*signing.Pointer, int64)
		words string
		alarm bool
	}{
		{"another key", func(*sim.World) (*signing.Pointer, int64) { return other.Pointer(2, pathB, signing.Auto), 2 }, "signatures are good", false},
		{"another origin", func(w *sim.World) (*signing.Pointer, int64) {
			h := head(2)
			h.Origin = "other.example.org/prod"
			return w.Keys.PointerOf(h, entryB()), 2
		}, "other.example.org", false},
		{"another entry", func(w *sim.World) (*signing.Pointer, int64) {
			p := *w.Keys.Pointer(2, pathB, signing.Auto)
			p.Entry = w.Keys.Pointer(2, pathC, signing.Auto).Entry
			return &p, 2
		}, "not part of the release", false},
		{"another system", func(w *sim.World) (*signing.Pointer, int64) {
			e := entryB()
			e.System = "aarch64-linux"
			return w.Keys.PointerOf(head(2), e), 2
		}, "aarch64-linux", false},
		{"another target", func(w *sim.World) (*signing.Pointer, int64) {
			e := entryB()
			e.Target = "h2"
			return w.Keys.PointerOf(head(2), e), 2
		}, `for "h2"`, false},
		{"a jump", func(w *sim.World) (*signing.Pointer, int64) { return w.Keys.Pointer(1002, pathB, signing.Auto), 1002 }, "more than 1000", true},
		{"two of one seq", func(w *sim.World) (*signing.Pointer, int64) { return w.Keys.Pointer(1, pathB, signing.Auto), 1 }, "two releases have seq 1", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := world(t, sim.System{})
			w.Add(&sim.System{Path: pathC})
			wants(w, nil, 0)
			p, seq := c.show(w)
			wants(w, p, seq)
			j := ends(t, w, api.Rejected, pathA, pathA, pathA)
			if !strings.Contains(j.Error, c.words) || (j.Alarm != "") != c.alarm {
				t.Errorf("error %q, alarm %q", j.Error, j.Alarm)
			}
			if s := w.Acks[len(w.Acks)-1]; s.HighestSeq != 1 || s.Confirmed != pathA {
				t.Errorf("report: %+v", s)
			}
			// The server is cleaned: the host converges.
			w.Promote(1, pathA, signing.Auto)
			ends(t, w, api.OK, pathA, pathA, pathA)
			w.Promote(3, pathB, signing.Auto)
			ends(t, w, api.OK, pathB, pathB, pathB)
		})
	}
}

func TestLowerSeqIsAStaleServer(t *testing.T) {
	w := world(t, sim.System{})
	w.Promote(5, pathB, signing.Auto)
	ends(t, w, api.OK, pathB, pathB, pathB)
	w.Promote(1, pathA, signing.Auto)
	j := ends(t, w, api.OK, pathB, pathB, pathB)
	if j.Alarm == "" || j.Seq != 5 || !strings.Contains(w.Acks[len(w.Acks)-1].Error, "stale") {
		t.Errorf("seq %d, alarm %q", j.Seq, j.Alarm)
	}
	if s := w.Acks[len(w.Acks)-1]; s.HighestSeq != 5 || s.Head == nil {
		t.Errorf("the server is not told what it lost: %+v", s)
	}
}

func TestMinSeq(t *testing.T) {
	w := sim.New(&sim.System{Path: pathA})
	w.Add(&sim.System{Path: pathB})
	rules := w.Keys.Rules()
	rules.MinSeq = 7
	w.Promote(6, pathB, signing.Auto)
	if j, err := w.Drive(rules, 100, nil); err != nil || j.State != api.Rejected {
		t.Fatal(j, err)
	}
	w.Promote(7, pathB, signing.Auto)
	if j, err := w.Drive(rules, 500, nil); err != nil || j.State != api.OK {
		t.Fatal(j, err)
	}
	checkTruth(t, w)
}

// turns runs an agent that is not expected to settle.
func turns(t *testing.T, w *sim.World, n int) *api.Status {
	t.Helper()
	if j, err := w.Drive(w.Keys.Rules(), n, nil); err == nil {
		t.Fatalf("it settled in %s", j.State)
	}
	checkTruth(t, w)
	return w.Statuses[len(w.Statuses)-1]
}

func TestExpiredIsNotStarted(t *testing.T) {
	w := world(t, sim.System{})
	h := head(2)
	past := time.Unix(1_700_000_001, 0).UTC()
	h.Expires = &past
	wants(w, w.Keys.PointerOf(h, entryB()), 2)
	s := turns(t, w, 50)
	if s.State != api.WaitingState || s.WaitingFor.Kind != api.WaitExpired || w.Current != pathA {
		t.Errorf("%+v", s)
	}
}

func TestNothingWithoutAGrant(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(w *sim.World)
		kind api.WaitKind
	}{
		"no grant":          {func(w *sim.World) { w.Wants.Grant = nil }, api.WaitWave},
		"a grant of before": {func(w *sim.World) { w.Wants.Grant.Seq = 1 }, api.WaitWave},
		"a reason":          {func(w *sim.World) { w.Wants.Grant, w.Wants.WaitingFor = nil, &api.Waiting{Kind: api.WaitBake} }, api.WaitBake},
		"a hold":            {func(w *sim.World) { w.Wants.Hold = &api.Hold{Reason: "audit", By: "kim"} }, api.WaitHold},
		"a pause":           {func(w *sim.World) { w.Pause = &api.Hold{Reason: "disk", By: "root"} }, api.WaitPaused},
		"a person":          {func(w *sim.World) { w.BusyFor = 1 << 40 }, api.WaitInhibited},
	} {
		t.Run(name, func(t *testing.T) {
			w := world(t, sim.System{})
			w.Promote(2, pathB, signing.Auto)
			c.do(w)
			s := turns(t, w, 60)
			if s.State != api.WaitingState || s.WaitingFor == nil || s.WaitingFor.Kind != c.kind || w.Started() != 0 {
				t.Fatalf("%+v waiting for %+v", s, s.WaitingFor)
			}
			w.Pause, w.BusyFor = nil, 0
			w.Promote(2, pathB, signing.Auto)
			ends(t, w, api.OK, pathB, pathB, pathB)
		})
	}
}

func TestNotInRelease(t *testing.T) {
	w := world(t, sim.System{})
	w.Wants = &api.Desired{Channel: sim.Channel, Seq: 2}
	j := ends(t, w, api.NotInRelease, pathA, pathA, pathA)
	if j.WaitingFor.Kind != api.WaitNotInRelease {
		t.Errorf("waiting for %+v", j.WaitingFor)
	}
	w.Promote(3, pathB, signing.Auto)
	ends(t, w, api.OK, pathB, pathB, pathB)
}

func TestInhibitedSwitchWaits(t *testing.T) {
	w := world(t, sim.System{Inhibited: []string{"switch-inhibitors: dbus"}})
	w.Promote(2, pathB, signing.Switch)
	turns(t, w, 60)
	// It looks again and again, which is draining; in between it says why it waits.
	said := slices.ContainsFunc(w.Statuses, func(s *api.Status) bool {
		return s.State == api.WaitingState && s.WaitingFor != nil && s.WaitingFor.Kind == api.WaitInhibited
	})
	if !said || w.Started() != 0 {
		t.Fatalf("started %d times, last status %+v", w.Started(), w.Statuses[len(w.Statuses)-1])
	}
	w.Promote(3, pathB, signing.Auto)
	ends(t, w, api.Armed, pathA, pathB, pathB)
}

func TestServerAway(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after bool // is the server down
		witness       bool
		state         api.State
		unconfirmed   bool
	}{
		{"goes and the gateway lives", false, true, true, api.OK, true},
		{"goes and nothing lives", false, true, false, api.Reverted, false},
		{"was away before", true, true, false, api.OK, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := world(t, sim.System{})
			w.WitnessAlive = c.witness
			w.Promote(2, pathB, signing.Auto)
			w.Fail = func(op string) error {
				switch op {
				case "report now":
					w.Down = c.before
				case "start test":
					w.Down = c.after
				}
				return nil
			}
			_, _ = w.Drive(w.Keys.Rules(), 400, nil) // it may still be at it
			w.Down, w.Fail = false, nil
			checkTruth(t, w)
			j, err := w.Drive(w.Keys.Rules(), 400, nil)
			if err != nil || j.State != c.state || j.Attempt.Unconfirmed != c.unconfirmed {
				t.Fatalf("%v %+v", err, j)
			}
		})
	}
}

// TestServerBlinks: a server that is away for less than confirm_timeout harms
// nobody.
func TestServerBlinks(t *testing.T) {
	w := world(t, sim.System{})
	w.WitnessAlive = false
	w.Promote(2, pathB, signing.Auto)
	since := int64(0)
	w.Fail = func(op string) error {
		if op == "start test" {
			since = w.Clock
		}
		w.Down = since != 0 && w.Clock < since+45_000
		return nil
	}
	j := ends(t, w, api.OK, pathB, pathB, pathB)
	if j.Attempt.Unconfirmed || j.Attempt.Confirm == "" {
		t.Errorf("%+v", j.Attempt)
	}
}

func TestNewerJournal(t *testing.T) {
	w := world(t, sim.System{})
	w.Journal = []byte(`{"version": 99}`)
	before := w.Started()
	if _, err := w.Drive(w.Keys.Rules(), 10, nil); err == nil || !strings.Contains(err.Error(), "newer narwharf") {
		t.Fatal(err)
	}
	if s := w.Acks[len(w.Acks)-1]; s.State != api.Failed || s.Error == "" || w.Started() != before || string(w.Journal) != `{"version": 99}` {
		t.Errorf("%+v", s)
	}
}
