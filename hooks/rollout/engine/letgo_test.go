package engine_test

import (
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
)

// stagingByItsGrant is a host that fetches release 1 by its grant while release 2 replaces that.
func stagingByItsGrant(t *testing.T, silent bool) (*world, *agent) {
	t.Helper()
	w := newWorld(t)
	w.policy("web", `{"rollout": {"prefetch": false, "max_concurrency": 1}}`)
	x := w.add("web", "x", nil, "/old")
	x.silent = silent
	w.promote("web", 1, "/one")
	x.poll()
	x.level.State = api.Staging
	x.report()
	w.wait(time.Minute)
	w.promote("web", 2, "/two")
	if r := w.row("x"); r.Phase != rollout.Withdrawn || r.Seq != 1 {
		t.Fatalf("its row is %s", text(r))
	}
	w.wait(2 * time.Minute)
	x.level.State = api.Staged // it has it all, and asks for its grant
	x.poll()
	x.level.State, x.level.Waiting = api.WaitingState, api.WaitWave
	x.report()
	return w, x
}

// Without prefetch a release is shown by its grant. A host that fetches one which another replaces
// says that it has no grant any more, and begins with the other a minute later.
func TestReplacedWhileStaging(t *testing.T) {
	w, x := stagingByItsGrant(t, false)
	w.wait(59 * time.Second)
	if r := w.row("x"); r.Phase != rollout.Withdrawn {
		t.Fatalf("an answer may be on its way still, and its row is %s", text(r))
	}
	w.wait(2 * time.Second)
	if r := w.row("x"); r.Phase != rollout.Granted || r.Seq != 2 {
		t.Fatalf("its row is %s", text(r))
	}
	x.goes(api.OK)
	w.endsOn(t, 2, "/two")
}

// An agent that does not say so may begin until its lease is over.
func TestReplacedWhileStagingSilent(t *testing.T) {
	w, x := stagingByItsGrant(t, true)
	w.wait(13 * time.Minute)
	if r := w.row("x"); r.Phase != rollout.Withdrawn {
		t.Fatalf("its lease is not over, and its row is %s", text(r))
	}
	w.wait(time.Minute)
	if r := w.row("x"); r.Phase != rollout.Granted || r.Seq != 2 {
		t.Fatalf("its row is %s", text(r))
	}
	x.goes(api.OK)
	w.endsOn(t, 2, "/two")
}

// A host that lets go of a grant while it still has it (an answer of a server that is behind) keeps
// its place; what it says of a grant of before is of no meaning; and if it begins after all, it holds a place.
func TestLetGoOfAnother(t *testing.T) {
	w := newWorld(t)
	w.policy("web", `{"rollout": {"max_concurrency": 1}}`)
	x := w.add("web", "x", nil, "/old")
	w.promote("web", 1, "/one")
	w.staged()
	x.level.LetGo = w.row("x").GrantID()
	x.report()
	if r := w.row("x"); r.Phase != rollout.Granted {
		t.Fatalf("its row is %s", text(r))
	}
	x.level.LetGo = "web-1-7"
	x.report()
	w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Pause, By: "x"})
	w.wait(5 * time.Minute)
	if r := w.row("x"); r.Phase != rollout.Withdrawn {
		t.Fatalf("its row is %s", text(r))
	}
	x.level.LetGo = w.row("x").GrantID()
	x.report()
	x.level.State = api.Draining
	x.report()
	if r := w.row("x"); r.Phase != rollout.Begun {
		t.Fatalf("its row is %s", text(r))
	}
}

// A host that is well is told nothing new by that, so nobody wakes it: its grant ends with its
// lease. It ends at once when it is not well any more, or when nobody is to be granted anything.
func TestWellIsNotWoken(t *testing.T) {
	for what, then := range map[string]func(w *world, x *agent){
		"lease": func(w *world, _ *agent) { w.wait(16 * time.Minute) },
		"drift": func(_ *world, x *agent) {
			x.level.State, x.level.Current = api.Drifted, "/person"
			x.report()
		},
		"freeze": func(w *world, _ *agent) { w.must(rollout.Limits{Freeze: &rollout.Hold{Reason: "audit"}}) },
		"pause":  func(_ *world, x *agent) { x.level.Paused = true; x.report() },
		"newer":  func(w *world, _ *agent) { w.promote("web", 2, "/two") },
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			w.policy("web", `{"rollout": {"waves": [{"max": 1}, {}]}}`)
			x, y := w.add("web", "x", nil, "/old"), w.add("web", "y", nil, "/old")
			w.promote("web", 1, "/one")
			w.staged()
			if w.row("x").Phase != rollout.Granted {
				x, y = y, x
			}
			name := x.level.Host
			x.poll()
			n, before := len(w.woken), w.e.Answer(name, w.now)
			for range 4 {
				x.act(api.OK)
				x.report()
			}
			if is := w.e.Answer(name, w.now); w.wasWoken(name, n) || before.Grant == "" || is.Grant != before.Grant || is.Seq != before.Seq {
				t.Fatalf("it was told %+v, is told %+v, woken: %v; %s", before, is, w.wasWoken(name, n), text(w.row(name)))
			}
			then(w, x)
			is := w.e.Answer(name, w.now)
			if is.Grant == before.Grant || w.wasWoken(name, n) == (what == "lease") {
				t.Errorf("it is told %+v, woken: %v", is, w.wasWoken(name, n))
			}
			if y.level.State == api.OK {
				t.Error("the other has begun")
			}
		})
	}
}
