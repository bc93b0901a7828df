package engine_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
)

// goesAway is that a host is not heard of any more.
func (a *agent) goesAway() {
	a.away = a.w.now
	a.w.must(rollout.Seen{Host: a.level.Host, Away: a.w.now})
}

// A host goes offline in each state, and comes back after days: the others go on meanwhile
// where it holds nobody up, and it ends on the release.
func TestOfflineInEachState(t *testing.T) {
	for _, state := range hostStates {
		if state == "reverted" || state == "failed" || state == "offline" {
			continue // they have ended, or are it
		}
		t.Run(state, func(t *testing.T) {
			w, x := reached(t, state, "replace")
			began := busy(x.level.State)
			x.goesAway()
			w.wait(11 * time.Minute)
			if kind, _ := w.e.Why("x"); !began && state != "well" && kind != api.WaitOffline && state != "armed" && state != "granted" {
				t.Errorf("it waits for %q", kind)
			}
			w.finish()
			y := w.agents["y"].level.Current
			if began != (y == "/old") { // there is one place, and who has begun holds it
				t.Errorf("y runs %s", y)
			}
			if began && state != "timed out" && w.row("x").Fault != rollout.TimedOut {
				t.Errorf("it has begun and is not heard of: %s", text(w.row("x")))
			}
			w.wait(10 * time.Hour)
			x.report()
			w.finish()
			w.endsOn(t, 1, "/one")
		})
	}
}

// A host that has lost its state: what it had begun is an error, and what it had not is
// begun anew.
func TestLostState(t *testing.T) {
	for _, state := range hostStates {
		t.Run(state, func(t *testing.T) {
			w, x := reached(t, state, "replace")
			began := busy(x.level.State)
			l := &x.level
			l.State, l.Seq, l.HighestSeq, l.Attempt, l.Confirmed = api.Idle, 0, 0, "", ""
			x.grant, x.obeyed, x.previous, x.denied = 0, "", "", make(map[string]bool)
			x.report()
			if r := w.row("x"); began && (r.Phase != rollout.Bad || r.Fault != rollout.Lost) {
				t.Fatalf("it had begun, and its row is %s", text(r))
			}
			w.finish()
			if p := w.row("x").Phase; p == rollout.Bad {
				w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Retry, By: "x"})
				w.finish()
			}
			w.endsOn(t, 1, "/one")
		})
	}
}

// A host that is removed frees its place, and one that comes under another name is a new one.
func TestRemovedAndRenamed(t *testing.T) {
	for _, state := range hostStates {
		t.Run(state, func(t *testing.T) {
			w, x := reached(t, state, "replace")
			w.names = w.names[1:]
			delete(w.agents, "x")
			w.must(rollout.Gone{Host: "x"})
			if _, kept := w.hosts["x"]; kept {
				t.Error("its row stays")
			}
			if ans := w.e.Answer("x", w.now); ans != (rollout.Answer{}) {
				t.Errorf("it is told %+v", ans)
			}
			w.finish()
			w.endsOn(t, 1, "/one")
			z := w.add("web", "z", nil, x.level.Current)
			if p := w.row("z").Phase; p != rollout.Untouched {
				t.Errorf("the new one is %s", p)
			}
			w.put("web", 2, all("/two"))
			w.must(rollout.Promote{Channel: "web", Seq: 2})
			w.finish()
			if w.endsOn(t, 2, "/two"); z.level.Current != "/two" {
				t.Errorf("it runs %s", z.level.Current)
			}
		})
	}
}

// A host that moves to another channel in mid-way: its place is free, and it belongs to
// the new one, whatever becomes of the old.
func TestMoves(t *testing.T) {
	w, x := reached(t, "activating", "replace")
	w.policy("other", `{"rollout": {}}`)
	x.level.Channel, x.level.State, x.level.Seq, x.level.HighestSeq, x.level.Attempt = "other", api.Idle, 0, 0, ""
	x.report()
	if r := w.row("x"); r.Channel != "other" || r.Phase != rollout.Untouched {
		t.Fatalf("its row is %s", text(r))
	}
	w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Abort, By: "x"})
	w.promote("other", 1, "/else")
	w.finish()
	if x.level.Current != "/else" || w.run("web").State != rollout.Aborted || w.run("other").State != rollout.Completed {
		t.Errorf("it runs %s; %s, %s", x.level.Current, w.run("web").State, w.run("other").State)
	}
}

// A wave whose hosts are all offline waits for them or for skip, and infers nothing.
func TestWaveOffline(t *testing.T) {
	w := five(t, canaryPolicy)
	w.agents["web-1"].goesAway()
	w.wait(11 * time.Minute)
	w.promote("web", 1, "/new")
	w.finish()
	if r := w.run("web"); r.State != rollout.Running || len(r.Waves) != 1 || w.agents["web-2"].level.Current != "/old" {
		t.Fatalf("the canary is offline: %s", text(r))
	}
	if kind, _ := w.e.Why("web-1"); kind != api.WaitOffline {
		t.Errorf("it waits for %q", kind)
	}
	w.agents["web-1"].goes(api.OK)
	w.finish()
	w.endsOn(t, 1, "/new")
}

// A host that went off seconds ago is no wave of its own while others are there, and gets no
// place before them; one that is offline comes after it.
func TestWhoIsThereComesFirst(t *testing.T) {
	w := newWorld(t)
	w.policy("web", `{"rollout": {"waves": [{"max": 1}, {"max": 1}, {"max": 1}, {"max": 1}, {}], "max_concurrency": 1, "prefetch": false}}`)
	for i := range 6 {
		w.add("web", fmt.Sprintf("web-%d", i), nil, "/old")
	}
	offline, off := []string{"web-0", "web-1"}, []string{"web-2", "web-3"}
	for _, name := range offline {
		w.agents[name].goesAway()
	}
	w.wait(11 * time.Minute)
	for _, name := range off {
		w.agents[name].goesAway()
	}
	w.promote("web", 1, "/new")
	var order []string
	for range 4 {
		for _, name := range w.names {
			if w.row(name).Phase == rollout.Granted {
				order = append(order, name)
				w.agents[name].goes(api.OK)
			}
		}
	}
	is := fmt.Sprint(slices.Sorted(slices.Values(order[:2])), slices.Sorted(slices.Values(order[2:])))
	if want := fmt.Sprint([]string{"web-4", "web-5"}, off); is != want {
		t.Fatalf("they were granted in the order %s", order)
	}
	for _, name := range offline {
		w.agents[name].goes(api.OK)
	}
	w.endsOn(t, 1, "/new")
}

// In a wave of all, who is not heard of gets its place last, and who comes back stands where it stood.
func TestPlacesOfHostsThatAreThere(t *testing.T) {
	w := newWorld(t)
	w.policy("web", `{"rollout": {"max_concurrency": 1, "prefetch": false}}`)
	for i := range 8 {
		w.add("web", fmt.Sprintf("web-%d", i), nil, "/old")
	}
	w.must(rollout.Window{Channel: "web"})
	w.promote("web", 1, "/new")
	first := slices.MinFunc(w.names, func(a, b string) int { return cmp.Compare(w.e.Hosts[a].Turn(), w.e.Hosts[b].Turn()) })
	w.agents[first].goesAway()
	w.must(rollout.Window{Channel: "web", Open: true})
	if got := w.granted(); len(got) != 1 || got[0] == first {
		t.Fatalf("%s were granted, and %s is not heard of", got, first)
	}
	x := w.agents[w.granted()[0]]
	w.agents[first].report()
	x.goes(api.OK)
	if w.row(first).Phase != rollout.Granted {
		t.Errorf("%s is there again, and another was granted: %s", first, w.phases())
	}
	w.finish()
	w.endsOn(t, 1, "/new")
}

// restart is another driver, which has heard of nobody yet.
func (w *world) restart(t *testing.T) {
	t.Helper()
	s := w.snapshot()
	s.Away = nil
	w.began = w.now
	w.e = w.newEngine()
	if err := w.e.Load(s); err != nil {
		t.Fatal(err)
	}
	w.must(rollout.Tick{})
}

// While the server was off nobody could tell it anything: hosts that had begun, or may
// have, have the time of offline_after to say how they ended. Until then they hold their places.
func TestAttemptsOverDriverStart(t *testing.T) {
	for _, state := range []string{"granted", "activating"} {
		for _, how := range []api.State{api.OK, api.Reverted} {
			w, x := reached(t, state, "replace")
			x.poll()
			for x.level.State != how { // it tells nobody
				x.act(how)
			}
			w.now = w.now.Add(3 * time.Hour)
			w.restart(t)
			if n := w.e.Channels["web"].Flight; n != 1 || w.row("x").Fault != "" {
				t.Fatalf("%s: just after the start %d hosts hold a place: %s", state, n, text(w.row("x")))
			}
			w.wait(5 * time.Minute)
			if x.report(); w.row("x").Fault == rollout.TimedOut || w.row("x").Phase.InFlight() {
				t.Errorf("%s: its row is %s", state, text(w.row("x")))
			}
			w.agents["y"].goes(api.OK)
		}
		w, _ := reached(t, state, "replace")
		w.now = w.now.Add(3 * time.Hour)
		w.restart(t)
		w.wait(11 * time.Minute)
		if r := w.row("x"); (r.Fault == rollout.TimedOut) != (state == "activating") {
			t.Errorf("%s, and never heard of again: %s", state, text(r))
		}
	}
}

// The time in which the server was off is not that of a wave: hosts could not go on. What it had
// before counts, however often the server ends.
func TestWaveTimeoutOverDriverStart(t *testing.T) {
	w := newWorld(t)
	w.policy("web", `{"rollout": {"timeout": "2h"}}`)
	w.add("web", "x", nil, "/old") // it says nothing any more, and is there
	w.promote("web", 1, "/new")
	for range 3 {
		w.wait(31 * time.Minute)
		w.now = w.now.Add(5 * time.Hour)
		w.restart(t)
		w.wait(time.Minute)
		if r := w.run("web"); r.State != rollout.Running {
			t.Fatalf("it is %s", text(r))
		}
		w.agents["x"].report()
	}
	w.wait(20 * time.Minute)
	if r := w.run("web"); r.State != rollout.Running { // 3 times 30 minutes, and 21
		t.Fatalf("it is %s", text(r))
	}
	w.wait(20 * time.Minute)
	if r := w.run("web"); r.State != rollout.Halted {
		t.Errorf("it is %s", text(r))
	}
}

// Just after a driver's start nobody has been heard of: nobody is offline before
// offline_after has passed since then, and no wave passes by that.
func TestWaveAfterDriverStart(t *testing.T) {
	w := five(t, canaryPolicy)
	w.promote("web", 1, "/new")
	w.staged()
	w.now = w.now.Add(20 * time.Hour) // the server was off
	w.restart(t)
	for _, name := range w.names {
		if f := w.e.Hosts[name].Counted; f.Away {
			t.Errorf("%s is offline", name)
		}
	}
	if r := w.run("web"); r.State != rollout.Running || len(r.Waves) != 1 {
		t.Fatalf("it is %s", text(r))
	}
	w.wait(9 * time.Minute)
	if f := w.e.Hosts["web-1"].Counted; f.Away {
		t.Error("it is offline before offline_after has passed")
	}
	w.wait(2 * time.Minute)
	if r := w.run("web"); !w.e.Hosts["web-1"].Counted.Away || len(r.Waves) != 1 || r.State != rollout.Running {
		t.Errorf("it is %s", text(r))
	}
	for _, name := range w.names {
		w.agents[name].report()
	}
	w.finish()
	w.endsOn(t, 1, "/new")
}

// A host that says ok and runs something else is never well. It keeps its place, since
// nothing says that it is done, and its time is bounded.
func TestLiesOK(t *testing.T) {
	w, x := reached(t, "probation", "replace")
	x.level.State = api.OK
	x.report()
	if r := w.row("x"); r.Phase != rollout.Begun {
		t.Fatalf("its row is %s", text(r))
	}
	w.wait(31 * time.Minute)
	if r := w.row("x"); r.Fault != rollout.TimedOut || w.e.Channels["web"].Flight != 1 {
		t.Errorf("its row is %s", text(r))
	}
	if n := w.e.Channels["web"].Run.Waves[0]; n[0] != 0 || w.e.Channels["web"].Row.LastWell() != 0 {
		t.Errorf("the wave has %v", n)
	}
	x.level.Current, x.level.Profile = "/one", "/one"
	x.report()
	w.finish()
	w.endsOn(t, 1, "/one")
}
