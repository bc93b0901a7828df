package engine_test

import (
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
)

// The six bugs of state that is inferred from snapshots, as they were found in another
// fleet manager that guessed transitions it should have been told of.

// Bug 1: after a way back the server believed that the bad system still ran.
func TestBugStaleCurrent(t *testing.T) {
	w := five(t, `{"rollout": {"max_errors": 5, "quarantine_after": 0}}`)
	w.promote("web", 1, "/new")
	w.staged()
	a := w.agents["web-1"]
	a.goes(api.OK)
	// ok is worth nothing while something else runs.
	b := w.agents["web-2"]
	b.level.State, b.level.Seq, b.level.Current = api.OK, 1, "/old"
	b.report()
	if p := w.row("web-2").Phase; p == rollout.Well {
		t.Error("ok of a host that runs something else counts")
	}
	// It says ok of the seq, and of what runs that it is something else.
	a.level.Current = "/old"
	a.report()
	w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Abort, By: "x"})
	a.poll()
	a.level.State = api.Reverted
	a.report()
	if p := w.row("web-1").Phase; p != rollout.Back {
		t.Errorf("it went back, and is %q", p)
	}
}

// Bug 2: passes of the system before opened the gates of the new one.
func TestBugOldPassesOpenNewGates(t *testing.T) {
	w := five(t, `{"rollout": {"waves": [{"max": 1, "bake": "5m", "checks": ["rate"]}, {}]}}`)
	w.promote("web", 1, "/one")
	w.staged()
	one := w.granted()
	for _, name := range w.names {
		if w.row(name).Phase == rollout.Granted {
			one = []string{name}
		}
	}
	asked := w.now
	w.must(rollout.Checked{Channel: "web", Seq: 1, Wave: 1, Name: "rate", Asked: asked, OK: true}) // before the bake
	w.now = w.now.Add(time.Minute)
	w.agents[one[0]].goes(api.OK)
	w.must(rollout.Checked{Channel: "web", Seq: 1, Wave: 1, Name: "rate", Asked: asked, OK: true}) // asked before it
	w.wait(6 * time.Minute)
	if r := w.run("web"); len(r.Waves) != 1 || r.State != rollout.Halted {
		t.Fatalf("a check's answer of before the bake counts: %s", text(r))
	}
	// What a host says of an attempt that is over is no end of the next one either.
	w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Resume, By: "x"})
	w.must(rollout.Checked{Channel: "web", Seq: 1, Wave: 1, Name: "rate", Asked: w.now, OK: true})
	w.wait(6 * time.Minute)
	if r := w.run("web"); len(r.Waves) != 2 {
		t.Fatalf("the check of this bake says yes, and %s", text(r))
	}
}

// Also of bug 2: the word of an attempt that is over is no end of the next.
func TestBugOldAttempt(t *testing.T) {
	w := five(t, `{"rollout": {"max_concurrency": 1, "quarantine_after": 0}}`)
	w.promote("web", 1, "/new")
	w.staged()
	var a *agent
	for _, name := range w.names {
		if w.row(name).Phase == rollout.Granted {
			a = w.agents[name]
		}
	}
	a.goes(api.Reverted)
	w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Retry, By: "x"})
	a.report() // still the old word
	if r := w.row(a.level.Host); r.Fault != "" {
		t.Fatalf("the word of the attempt before counts again: %s", text(r))
	}
	for r := w.row(a.level.Host); r.Phase != rollout.Granted; r = w.row(a.level.Host) {
		for _, name := range w.names {
			if name != a.level.Host && w.row(name).Phase == rollout.Granted {
				w.agents[name].goes(api.OK)
			}
		}
	}
	if ans := w.e.Answer(a.level.Host, w.now); ans.Directive != "retry" || ans.Grant == "" {
		t.Errorf("it is told %+v", ans)
	}
	a.goes(api.OK)
}

// Bug 3: clocks started when the server noticed, and not when it happened.
func TestBugClockFromNotice(t *testing.T) {
	w := five(t, canaryPolicy)
	w.promote("web", 1, "/new")
	w.staged()
	a := w.agents["web-1"]
	a.poll()
	for range 4 {
		a.act(api.OK)
	}
	done := w.now
	l := a.level
	l.At = done
	w.now = w.now.Add(7 * time.Minute) // the driver was away
	w.must(rollout.Report{Level: &l})
	if met := w.run("web").Waves[0].Met; !met.Equal(done) {
		t.Errorf("the bake begins at %s, and the host was well at %s", met, done)
	}
	w.wait(3*time.Minute + time.Second)
	if n := len(w.run("web").Waves); n != 2 {
		t.Errorf("%d waves ten minutes after the canary was well", n)
	}
}

// Bug 4: a gate passed before anything had been looked at once.
func TestBugPassBeforeFirstLook(t *testing.T) {
	w := five(t, `{"rollout": {"waves": [{"max": 1, "bake": "0s", "checks": ["rate"]}, {}], "success_threshold": "0%"}}`)
	w.promote("web", 1, "/new")
	if n := len(w.run("web").Waves); n != 1 {
		t.Fatal("a wave passed with nobody well")
	}
	w.staged()
	for _, name := range w.names {
		if w.row(name).Phase == rollout.Granted {
			w.agents[name].goes(api.OK)
		}
	}
	if n := len(w.run("web").Waves); n != 1 {
		t.Fatal("a bake of 0 s passed before its check had answered once")
	}
	w.must(rollout.Checked{Channel: "web", Seq: 1, Wave: 1, Name: "rate", Asked: w.now, OK: true})
	if n := len(w.run("web").Waves); n != 2 {
		t.Fatalf("the check said yes: %s", text(w.run("web")))
	}
}

// Bug 5: done was inferred from what was not there, and a roll-out without changes
// never ended.
func TestBugDoneByAbsence(t *testing.T) {
	w := five(t, canaryPolicy)
	w.promote("web", 1, "/old")
	if r := w.run("web"); r.State != rollout.Completed || w.e.Channels["web"].Row.LastWell() != 1 {
		t.Fatalf("a release that changes nobody: %s", text(r))
	}
	// Of hosts that are all away nothing is inferred.
	w.now = w.now.Add(time.Second)
	for _, name := range w.names {
		w.must(rollout.Seen{Host: name, Away: w.now})
	}
	w.promote("web", 2, "/new")
	w.wait(time.Hour)
	if r := w.run("web"); r.State != rollout.Running || len(r.Waves) != 1 {
		t.Fatalf("all hosts are offline: %s", text(r))
	}
	if kind, _ := w.e.Why("web-1"); kind != api.WaitOffline {
		t.Errorf("it waits for %q", kind)
	}
	// A person may skip the wave; and who comes back is granted.
	w.must(rollout.Verb{Channel: "web", Seq: 2, Verb: rollout.Skip, By: "x", Reason: "they are in a box"})
	if n := len(w.run("web").Waves); n != 2 {
		t.Fatalf("%d waves after skip", n)
	}
	w.agents["web-1"].goes(api.OK)
}

// Bug 6: states that cannot be could be written down.
func TestBugNonsenseRows(t *testing.T) {
	for _, c := range []struct {
		name string
		row  rollout.Host
	}{
		{"granted nothing", rollout.Host{V: 1, Name: "web-1", Channel: "web", Phase: rollout.Granted, Until: start}},
		{"a grant without an end", rollout.Host{V: 1, Name: "web-1", Channel: "web", Phase: rollout.Granted, Seq: 1}},
		{"bad without a fault", rollout.Host{V: 1, Name: "web-1", Channel: "web", Phase: rollout.Bad, Seq: 1}},
		{"in a wave of no roll-out", rollout.Host{V: 1, Name: "web-1", Channel: "web", Wave: 1}},
		{"of no channel", rollout.Host{V: 1, Name: "web-1"}},
		{"of a newer narwharf", rollout.Host{V: 99, Name: "web-1", Channel: "web"}},
	} {
		w := five(t, canaryPolicy)
		w.hosts["web-1"] = text(c.row)
		if err := w.load(); err == nil {
			t.Errorf("%s: the row is taken", c.name)
		}
	}
	// What hosts may say, in any order, never makes such a row: TestModel loads all of
	// them again.
}
