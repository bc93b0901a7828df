package engine_test

import (
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/policy"
)

// kernels are two hosts in two waves, of a release that both have to reboot for.
func kernels(t *testing.T, reboots bool) (w *world, first, second *agent) {
	w = newWorld(t)
	w.policy("web", `{"rollout": {"waves": [{"select": "canary", "bake": "10m"}, {}], "max_concurrency": 1}}`)
	p := w.policies["web"]
	p.Reboots = reboots
	w.policies["web"] = p
	w.must(p)
	first = w.add("web", "first", map[string]string{"canary": "yes"}, "/old")
	second = w.add("web", "second", nil, "/old")
	w.add("web", "beside", map[string]string{"canary": "yes"}, "/old")
	w.promote("web", 1, "/new")
	w.staged()
	return w, first, second
}

// rebooted is that an armed host runs what it was armed with.
func (a *agent) rebooted() {
	a.level.Current, a.level.Confirmed, a.level.State = a.entry().Path, a.entry().Path, api.OK
	a.report()
}

// Where the server permits reboots a wave waits for them. Meanwhile an armed host holds no
// place, and has all the time.
func TestArmedInWaves(t *testing.T) {
	w, first, second := kernels(t, true)
	for _, name := range []string{"first", "beside"} {
		w.agents[name].goes(api.Armed) // one after the other, and both before either has rebooted
	}
	w.wait(5 * time.Hour)
	if r := w.run("web"); r.State != rollout.Running || len(r.Waves) != 1 || !r.Waves[0].Met.IsZero() {
		t.Fatalf("two hosts are armed: %s", text(r))
	}
	if n := w.e.Channels["web"].Flight; n != 0 {
		t.Errorf("%d hosts hold a place", n)
	}
	if kind, _ := w.e.Why("first"); kind != api.WaitReboot {
		t.Errorf("it waits for %q", kind)
	}
	first.rebooted()
	if r := w.run("web"); len(r.Waves) != 1 || !r.Waves[0].Met.IsZero() {
		t.Fatalf("one is armed still: %s", text(r))
	}
	w.agents["beside"].rebooted()
	w.wait(11 * time.Minute)
	second.goes(api.Armed)
	second.rebooted()
	w.endsOn(t, 1, "/new")
}

// Where it permits none an armed host is well, and comes to run the release when somebody reboots it.
func TestArmedIsWell(t *testing.T) {
	w, first, second := kernels(t, false)
	first.goes(api.Armed)
	w.agents["beside"].goes(api.Armed)
	w.wait(11 * time.Minute)
	second.goes(api.Armed)
	if s := w.run("web").State; s != rollout.Completed {
		t.Fatalf("it is %s: %s", s, w.phases())
	}
	for _, name := range w.names {
		w.agents[name].rebooted()
	}
	w.endsOn(t, 1, "/new")
}

// A host that was armed and comes back with the old system is a late error: it halts
// what had completed.
func TestArmedFailsLate(t *testing.T) {
	for _, reboots := range []bool{true, false} {
		w, first, second := kernels(t, reboots)
		first.goes(api.Armed)
		w.agents["beside"].goes(api.Armed)
		if reboots {
			first.rebooted()
			w.agents["beside"].rebooted()
		}
		w.wait(11 * time.Minute)
		second.goes(api.Armed)
		second.level.State, second.level.Profile = api.Reverted, "/old"
		second.report()
		if r := w.run("web"); r.State != rollout.Halted || w.row("second").Fault != rollout.Reverted {
			t.Errorf("reboots %t: the roll-out is %s, the host %s", reboots, text(r), text(w.row("second")))
		}
		if n := w.e.Channels["web"].Row.Newest(); n != 0 {
			t.Errorf("reboots %t: release %d is one that completed", reboots, n)
		}
	}
}

// What has to be activated and what not, by the action of an entry.
func TestActions(t *testing.T) {
	for _, c := range []struct {
		action           string
		state            api.State
		current, profile string
	}{
		{"boot", api.Armed, "/old", "/new"},
		{"reboot", api.Armed, "/old", "/new"},
		{"test", api.Testing, "/new", "/old"},
		{"test", api.TestOver, "/old", "/old"},
		{"dry-activate", api.DryRunDone, "/old", "/old"},
		{"switch", api.OK, "/new", "/new"},
	} {
		t.Run(c.action+" "+string(c.state), func(t *testing.T) {
			w := newWorld(t)
			w.policy("web", `{"rollout": {}}`)
			a := w.add("web", "a", nil, "/old")
			w.put("web", 1, all("/new"))
			w.releases["web"][1].Entries["a"].Action = c.action
			w.must(rollout.Promote{Channel: "web", Seq: 1})
			w.staged()
			a.poll()
			a.act(api.OK)
			a.report()
			a.level.State, a.level.Current, a.level.Profile = c.state, c.current, c.profile
			a.report()
			if s := w.run("web").State; s != rollout.Completed || w.row("a").Phase != rollout.Well {
				t.Errorf("it is %s, the host %s", s, w.row("a").Phase)
			}
		})
	}
}

// When an armed host may reboot: never past what stops grants, or what takes its release back.
func TestMayReboot(t *testing.T) {
	verb := func(verbs ...string) func(w *world) {
		return func(w *world) {
			for _, v := range verbs {
				w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: v, By: "x", Reason: "it smells"})
			}
		}
	}
	hold := rollout.Hold{Select: policy.MustSelect("canary"), Reason: "look"}
	for _, c := range []struct {
		name string
		do   func(w *world)
		kind api.WaitKind
		why  string
	}{
		{"nothing", func(*world) {}, "", ""},
		{"paused", verb(rollout.Pause), api.WaitPaused, "release 1 is paused: x: it smells"},
		{"resumed", verb(rollout.Pause, rollout.Resume), "", ""},
		{"halted", func(w *world) { w.agents["beside"].goes(api.Failed) }, api.WaitPaused, "release 1 is halted: 1 hosts ended badly, and max_errors is 0"},
		{"quarantined", func(w *world) {
			w.agents["beside"].goes(api.Reverted)
			verb(rollout.Resume)(w)
		}, api.WaitQuarantine, "its system is in quarantine"},
		{"aborting", func(w *world) {
			w.agents["first"].deaf = true
			verb(rollout.Abort)(w)
		}, api.WaitWave, "release 1 is aborting"},
		{"superseded", func(w *world) { w.promote("web", 2, "/newer") }, api.WaitWave, "release 1 did not complete, and is not the last"},
		{"frozen", func(w *world) { w.limit(rollout.Limits{Freeze: &rollout.Hold{Reason: "audit"}}) }, api.WaitFreeze, "audit"},
		{"hold", func(w *world) { w.limit(rollout.Limits{Holds: map[string]rollout.Hold{"h": hold}}) }, api.WaitHold, "look"},
		{"held", func(w *world) { a := w.agents["first"]; a.level.Held = true; a.report() }, api.WaitHold, "it is held"},
		{"paused on the host", func(w *world) { a := w.agents["first"]; a.level.Paused = true; a.report() }, api.WaitPaused, "it is paused on the host"},
		{"windows", func(w *world) { w.must(rollout.Window{Channel: "web"}) }, "", ""}, // of grants; slots have their own
		{"budget", func(w *world) {
			w.limit(rollout.Limits{Budgets: map[string]rollout.Budget{"b": {MaxUnavailable: *policy.Number(1)}}})
			w.agents["beside"].poll()
			w.agents["beside"].report()
		}, api.WaitBudget, "as many hosts of a budget are unavailable as may be"},
		{"budget, and a slot", func(w *world) {
			a := w.agents["first"]
			a.level.Slot = true
			a.report()
			w.limit(rollout.Limits{Budgets: map[string]rollout.Budget{"b": {MaxUnavailable: *policy.Number(1)}}})
		}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, first, _ := kernels(t, true)
			first.goes(api.Armed)
			was := w.e.Answer("first", w.now).Wait
			n := len(w.woken)
			c.do(w)
			kind, why := w.e.MayReboot("first")
			if kind != c.kind || why != c.why {
				t.Errorf("it waits for %q: %s", kind, why)
			}
			ans := w.e.Answer("first", w.now)
			if ans.Seq == 1 && ans.Directive == "" && c.kind != api.WaitBudget && ans.Wait != c.kind {
				t.Errorf("it is told %+v", ans)
			}
			if ans.Wait != was && !w.wasWoken("first", n) {
				t.Error("it is told something else, and not woken")
			}
		})
	}
	w := newWorld(t)
	if kind, _ := w.e.MayReboot("nobody"); kind != "" {
		t.Errorf("a host that is not known waits for %q", kind)
	}
}

// A late host of a release that completed reboots into it while the next one is on its
// way, as long as it is not shown that one.
func TestMayRebootIntoCompleted(t *testing.T) {
	w, first, second := kernels(t, false)
	first.goes(api.Armed)
	w.agents["beside"].goes(api.Armed)
	w.wait(11 * time.Minute)
	second.goes(api.Armed)
	w.policy("web", `{"rollout": {"prefetch": false, "waves": [{"select": "canary"}, {}]}}`)
	w.promote("web", 2, "/newer")
	if kind, why := w.e.MayReboot("second"); kind != "" {
		t.Errorf("it waits for %s: %s", kind, why)
	}
	if ans := w.e.Answer("second", w.now); ans.Seq != 1 || ans.Wait != "" {
		t.Errorf("it is told %+v", ans)
	}
}
