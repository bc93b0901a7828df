package engine_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
)

// An abort asks hosts back that were granted last first, no more at a time than may be
// in flight; nobody new begins, and hosts that go back deny that release alone.
func TestAbort(t *testing.T) {
	w := five(t, `{"rollout": {"max_concurrency": 1}}`)
	w.promote("web", 1, "/new")
	w.staged()
	var order []string
	for range 3 {
		name := w.inPhase(rollout.Granted)
		order = append(order, name)
		w.now = w.now.Add(time.Minute)
		w.agents[name].goes(api.OK)
	}
	open := w.inPhase(rollout.Granted) // it has not begun
	w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Abort, By: "x", Reason: "it eats data"})
	if p := w.row(open).Phase; p != rollout.Withdrawn {
		t.Fatalf("an open grant is %s", p)
	}
	w.wait(rollout.Lease + rollout.Grace) // its place counts until nobody can use it any more
	slices.Reverse(order)
	for i, name := range order {
		if got := w.inPhase(rollout.Reverting); got != name {
			t.Fatalf("%s goes back as number %d, and %s was granted last: %s", got, i+1, name, w.phases())
		}
		a := w.agents[name]
		a.poll()
		a.report()
		if a.level.Current != "/old" || w.row(name).Phase != rollout.Back {
			t.Fatalf("%s runs %s, and is %s", name, a.level.Current, w.row(name).Phase)
		}
	}
	if s := w.run("web").State; s != rollout.Aborted {
		t.Fatalf("it is %s", s)
	}
	since := len(w.decisions)
	w.finish()
	if n := len(w.decisions); n != since {
		t.Errorf("after the abort: %v", w.decisions[since:])
	}
	w.promote("web", 2, "/newer")
	w.finish()
	w.endsOn(t, 2, "/newer")
}

// Hosts in each state of a release that is aborted: all that can be reached end on
// the system before, and the abort ends.
func TestAbortInEachState(t *testing.T) {
	for _, state := range hostStates {
		t.Run(state, func(t *testing.T) {
			w, x := reached(t, state, "replace")
			w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Abort, By: "x"})
			w.finish()
			if s := w.run("web").State; s != rollout.Aborted {
				t.Fatalf("it is %s: %s", s, w.phases())
			}
			want := "/old"
			if state == "failed" {
				want = "/broken" // it cannot go back by itself: a person's turn
			}
			if x.level.Current != want {
				t.Errorf("it runs %s; its row: %s", x.level.Current, text(w.row("x")))
			}
			if state == "offline" {
				x.report()
				w.finish()
			}
			if p := w.row("x").Phase; p.InFlight() {
				t.Errorf("it is %s", p)
			}
		})
	}
}

// A host that is away while its release is aborted goes back when it comes, after days.
func TestAbortOfHostsAway(t *testing.T) {
	w := five(t, `{"rollout": {}}`)
	w.promote("web", 1, "/new")
	w.staged()
	for _, name := range w.names {
		w.agents[name].goes(api.OK)
	}
	w.promote("web", 2, "/worse")
	w.staged()
	for _, name := range w.names[:4] {
		w.agents[name].goes(api.OK)
	}
	gone := w.agents["web-1"]
	gone.away = w.now
	w.must(rollout.Seen{Host: "web-1", Away: w.now})
	w.wait(11 * time.Minute)
	w.must(rollout.Verb{Channel: "web", Seq: 2, Verb: rollout.Abort, By: "x"})
	w.finish()
	if s := w.run("web").State; s != rollout.Aborted {
		t.Fatalf("it waits for who is away: %s, %s", s, w.phases())
	}
	w.wait(96 * time.Hour)
	gone.report()
	gone.poll()
	gone.report()
	if gone.level.Current != "/new" || w.row("web-1").Phase != rollout.Back {
		t.Errorf("it came back, and runs %s: %s", gone.level.Current, text(w.row("web-1")))
	}
}

// A release that is promoted while an abort is under way begins when that is over.
func TestPromoteWhileAborting(t *testing.T) {
	for _, now := range []bool{false, true} {
		w, x := reached(t, "activating", "reject")
		w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Abort, By: "x"})
		w.put("web", 2, all("/two"))
		w.must(rollout.Promote{Channel: "web", Seq: 2, Now: now})
		w.put("web", 3, all("/three"))
		w.must(rollout.Promote{Channel: "web", Seq: 3, Now: now})
		if s := w.run("web"); s.Seq != 1 || s.State != rollout.Aborting {
			t.Fatalf("the abort is %s", text(s))
		}
		if ans := w.e.Answer("y", w.now); ans.Seq > 1 || ans.Grant != "" {
			t.Errorf("y is told %+v", ans)
		}
		w.finish()
		if !slices.ContainsFunc(w.decisions, func(d rollout.Decision) bool { return d.Kind == "back" && d.Host == "x" }) {
			t.Errorf("x did not go back first: %s", text(x.level))
		}
		w.endsOn(t, 3, "/three")
	}
}

// Aborting a rollback does not ban the good system to which it went.
func TestAbortOfRollback(t *testing.T) {
	for _, denies := range []bool{false, true} { // older agents deny the bytes of what they were told to leave
		w := five(t, `{"rollout": {}}`)
		for _, name := range w.names {
			a := w.agents[name]
			a.deniesAll, a.level.DeniesBytes = denies, denies
			a.report()
		}
		w.promote("web", 1, "/good")
		w.finish()
		w.promote("web", 2, "/odd")
		w.finish()
		w.put("web", 3, all("/good"))
		w.must(rollout.Promote{Channel: "web", Seq: 3, Rollback: true})
		w.staged()
		for _, name := range w.names[:2] {
			w.agents[name].goes(api.OK)
		}
		w.must(rollout.Verb{Channel: "web", Seq: 3, Verb: rollout.Abort, By: "x", Reason: "it was the network"})
		w.finish()
		for _, name := range w.names {
			if l := w.agents[name].level; l.Current != "/odd" {
				t.Fatalf("%s runs %s", name, l.Current)
			}
		}
		w.put("web", 4, all("/good"))
		w.must(rollout.Promote{Channel: "web", Seq: 4, Rollback: true})
		w.finish()
		w.endsOn(t, 4, "/good")
		if len(w.quarantine) != 0 {
			t.Errorf("quarantine: %v", w.quarantine)
		}
	}
}

// A, B, and A again: it ends on A, also where B was bad and hosts went back by themselves.
func TestABA(t *testing.T) {
	for _, bad := range []bool{false, true} {
		w := five(t, `{"rollout": {"max_concurrency": 2}}`)
		w.promote("web", 1, "/a")
		w.finish()
		w.promote("web", 2, "/b")
		if w.staged(); bad {
			w.agents[w.inPhase(rollout.Granted)].goes(api.Reverted)
			if s := w.run("web").State; s != rollout.Halted {
				t.Fatalf("it is %s", s)
			}
		} else {
			w.finish()
			w.endsOn(t, 2, "/b")
		}
		w.promote("web", 3, "/a")
		w.finish()
		w.endsOn(t, 3, "/a")
		if got := w.e.Channels["web"].Row.LastWell(); got != 3 {
			t.Errorf("the last that completed well is %d", got)
		}
	}
}

// revert_wave asks back the hosts of the wave that failed, revert_all all of them, the
// last that was granted first. Retry is what takes them there again.
func TestRevertOnFailure(t *testing.T) {
	for _, c := range []struct{ word, back string }{
		{"revert_wave", "web-b"},
		{"revert_all", "web-b web-a"},
	} {
		t.Run(c.word, func(t *testing.T) {
			w := newWorld(t)
			w.policy("web", `{"rollout": {"waves": [{"select": "wave=1"}, {}], "max_concurrency": 1, "on_failure": "`+c.word+`"}}`)
			w.add("web", "web-a", map[string]string{"wave": "1"}, "/old")
			for _, name := range []string{"web-b", "web-c", "web-d"} {
				w.add("web", name, nil, "/old")
			}
			w.promote("web", 1, "/new")
			w.agents["web-a"].goes(api.OK)
			w.now = w.now.Add(time.Minute)
			w.agents["web-b"].goes(api.OK) // alone has staged it, so it is first
			w.agents["web-c"].goes(api.Reverted)
			if s := w.run("web").State; s != rollout.Halted {
				t.Fatalf("it is %s: %s", s, w.phases())
			}
			var back []string
			for range w.names {
				for _, name := range w.names {
					if w.row(name).Phase == rollout.Reverting {
						back = append(back, name)
						w.agents[name].poll()
						w.agents[name].report()
					}
				}
			}
			if got := strings.Join(back, " "); got != c.back {
				t.Errorf("these went back: %s", got)
			}
			if l := w.agents["web-a"].level; (l.Current == "/new") != (c.word == "revert_wave") {
				t.Errorf("web-a runs %s", l.Current)
			}
			if _, err := w.step(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Resume, By: "x"}); err == nil {
				t.Error("resume takes hosts there again that were asked to leave")
			}
			w.must(rollout.Clear{Path: "/new", By: "x"})
			w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Retry, By: "x"})
			w.finish()
			w.endsOn(t, 1, "/new")
		})
	}
}

// A host that refuses directives, or had confirmed nothing before, is left on what is
// aborted, and said to be.
func TestRefusesDirectives(t *testing.T) {
	w := newWorld(t)
	w.policy("web", `{"rollout": {"max_errors": 2}}`)
	stubborn := w.add("web", "stubborn", nil, "/old")
	stubborn.refusesAll, stubborn.level.Refuses = true, true
	w.add("web", "new", nil, "")
	other := w.add("web", "other", nil, "/old")
	stubborn.report()
	w.promote("web", 1, "/new")
	w.staged()
	stubborn.goes(api.OK)
	w.agents["new"].goes(api.OK)
	other.goes(api.Reverted)
	// The one that would refuse to try again is not asked to: a person on it has to.
	stubborn2 := w.add("web", "stubborn-2", nil, "/old")
	stubborn2.refusesAll, stubborn2.level.Refuses = true, true
	stubborn2.report()
	w.put("web", 2, all("/newer"))
	w.must(rollout.Promote{Channel: "web", Seq: 2})
	w.staged()
	for _, a := range []*agent{stubborn, w.agents["new"]} {
		a.goes(api.OK)
	}
	other.poll()
	other.report()
	stubborn2.goes(api.Reverted)
	w.must(rollout.Verb{Channel: "web", Seq: 2, Verb: rollout.Abort, By: "x"})
	w.finish()
	if got := w.phases(); got != "stubborn left, new back, other , stubborn-2 bad" {
		t.Errorf("they are %s", got)
	}
	if s := w.run("web").State; s != rollout.Aborted {
		t.Errorf("it is %s", s)
	}
	if stubborn.level.Current != "/newer" || w.agents["new"].level.Current != "/new" {
		t.Errorf("they run %s and %s", stubborn.level.Current, w.agents["new"].level.Current)
	}
}
