package engine_test

import (
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/policy"
)

// refused holds that an event is refused with a kind, and that nothing has changed then.
func (w *world) refused(t *testing.T, kind string, ev rollout.Event) (words string) {
	t.Helper()
	out, err := w.step(ev)
	r, ok := err.(*rollout.Refusal) //nolint:errorlint // it is never wrapped
	if !ok || r.Kind != kind {
		t.Fatalf("%+v: %v", ev, err)
	}
	if len(out.Rollouts)+len(out.Channels)+len(out.Hosts)+len(out.Decisions)+len(out.Wake) > 0 {
		t.Errorf("what was refused has changed something: %s", text(out))
	}
	return r.Text
}

// requires lets a release in once the same systems, or the same rev, have completed on
// the other channel and baked there.
func TestRequires(t *testing.T) {
	w := newWorld(t)
	w.policy("staging", `{"rollout": {}}`)
	w.policy("web", `{"rollout": {}, "requires": {"channel": "staging", "baked": "24h"}}`)
	w.add("staging", "s", nil, "/old")
	w.add("web", "p", nil, "/old")
	promote := rollout.Promote{Channel: "web", Seq: 1}
	w.put("web", 1, all("/new"))
	if words := w.refused(t, "not_proven", promote); !strings.Contains(words, "staging") {
		t.Errorf("it says %q", words)
	}
	w.promote("staging", 1, "/new")
	w.refused(t, "not_proven", promote) // it is on its way there
	w.agents["s"].goes(api.OK)
	w.wait(23 * time.Hour)
	if words := w.refused(t, "not_proven", promote); !strings.Contains(words, "completed 23h0m0s ago, and 1d are asked for") {
		t.Errorf("it says %q", words)
	}
	w.wait(time.Hour)
	w.must(promote)
	w.agents["p"].goes(api.OK)
	// Other systems for the hosts of this channel, of the same rev.
	w.put("staging", 2, all("/s2"))
	w.must(rollout.Promote{Channel: "staging", Seq: 2})
	w.agents["s"].goes(api.OK)
	w.wait(25 * time.Hour)
	w.put("web", 2, all("/p2")) // rev-2, as that of staging
	w.must(rollout.Promote{Channel: "web", Seq: 2})
	w.agents["p"].goes(api.OK)
	// Neither.
	w.put("web", 3, all("/p3"))
	w.refused(t, "not_proven", rollout.Promote{Channel: "web", Seq: 3})
	w.refused(t, "not_proven", rollout.Promote{Channel: "web", Seq: 3, Force: true}) // it is about quarantine
	w.must(rollout.Promote{Channel: "web", Seq: 3, Now: true})
}

// What did not complete well on the other channel proves nothing.
func TestRequiresWell(t *testing.T) {
	w := newWorld(t)
	w.policy("staging", `{"rollout": {"quarantine_after": 0}}`)
	w.policy("web", `{"rollout": {}, "requires": {"channel": "staging"}}`)
	w.add("staging", "s", nil, "/old")
	w.promote("staging", 1, "/new")
	w.agents["s"].goes(api.Reverted)
	w.must(rollout.Verb{Channel: "staging", Seq: 1, Verb: rollout.Resume, By: "x"})
	w.must(rollout.Verb{Channel: "staging", Seq: 1, Verb: rollout.Skip, By: "x"})
	if s := w.run("staging").State; s != rollout.Completed {
		t.Fatalf("it is %s", s)
	}
	w.put("web", 1, all("/new"))
	w.refused(t, "not_proven", rollout.Promote{Channel: "web", Seq: 1})
}

// promote --now goes past waves, bakes, after, requires and quarantine.
func TestNowGoesPast(t *testing.T) {
	const rules = `{"rollout": {"waves": [{"max": 1, "bake": "1h", "checks": ["rate"], "approve": true}, {"max": "100%", "bake": "1h"}], "max_errors": 1,
		"after": [{"first": "n=1", "then": "n=2"}]}, "requires": {"channel": "staging", "baked": "24h"}}`
	w := newWorld(t)
	w.policy("web", `{"rollout": {}}`)
	for _, n := range []string{"1", "2", "3"} {
		w.add("web", "web-"+n, map[string]string{"n": n}, "/old")
	}
	w.promote("web", 1, "/new")
	w.staged()
	w.agents["web-1"].goes(api.Reverted)
	if len(w.quarantine) != 1 {
		t.Fatalf("quarantine: %v", w.quarantine)
	}
	w.policy("web", rules)
	w.put("web", 2, all("/new"))
	w.refused(t, "quarantined", rollout.Promote{Channel: "web", Seq: 2, Rollback: true})
	w.must(rollout.Promote{Channel: "web", Seq: 2, Now: true})
	w.wait(rollout.Lease + rollout.Grace) // the grants of before are over
	w.staged()
	for _, name := range []string{"web-2", "web-3"} {
		if p := w.row(name).Phase; p != rollout.Granted {
			t.Errorf("%s is %q", name, p)
		}
		w.agents[name].goes(api.OK)
	}
	// It went back from these bytes by itself, and takes them again only by a retry.
	w.must(rollout.Verb{Channel: "web", Seq: 2, Verb: rollout.Retry, Host: "web-1", By: "x"})
	w.finish()
	w.endsOn(t, 2, "/new")
	if len(w.quarantine) != 0 {
		t.Error("it completed well, and is in quarantine still")
	}
}

// promote --now goes never past a freeze, holds, windows, budgets, max_concurrency or
// what is said on a host.
func TestNowGoesNotPast(t *testing.T) {
	for _, c := range []struct {
		name    string
		before  func(w *world)
		granted int
	}{
		{"nothing", func(*world) {}, 3},
		{"freeze", func(w *world) { w.limit(rollout.Limits{Freeze: &rollout.Hold{Reason: "audit"}}) }, 0},
		{"window", func(w *world) { w.must(rollout.Window{Channel: "web"}) }, 0},
		{"hold", func(w *world) {
			w.limit(rollout.Limits{Holds: map[string]rollout.Hold{"h": {Select: policy.MustSelect("n=1"), Reason: "look"}}})
		}, 2},
		{"held", func(w *world) { w.agents["web-1"].level.Held = true; w.agents["web-1"].report() }, 2},
		{"paused", func(w *world) { w.agents["web-1"].level.Paused = true; w.agents["web-1"].report() }, 2},
		{"budget", func(w *world) {
			w.limit(rollout.Limits{Budgets: map[string]rollout.Budget{"b": {MaxUnavailable: *policy.Number(1)}}})
		}, 1},
		{"max_concurrency", func(w *world) { w.policy("web", `{"rollout": {"max_concurrency": 2}}`) }, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.policy("web", `{"rollout": {}}`)
			for _, n := range []string{"1", "2", "3"} {
				w.add("web", "web-"+n, map[string]string{"n": n}, "/old")
			}
			c.before(w)
			w.put("web", 1, all("/new"))
			w.must(rollout.Promote{Channel: "web", Seq: 1, Now: true})
			w.staged()
			if n := w.e.Channels["web"].Flight; n != c.granted {
				t.Errorf("%d hosts are granted, and may be %d: %s", n, c.granted, w.phases())
			}
		})
	}
}

func (w *world) limit(l rollout.Limits) {
	w.limits = l
	w.must(l)
}

// A freeze and a hold end by themselves at their time.
func TestFreezeAndHoldEnd(t *testing.T) {
	w := five(t, `{"rollout": {}}`)
	w.limit(rollout.Limits{
		Freeze: &rollout.Hold{Reason: "audit", Until: w.now.Add(time.Hour)},
		Holds:  map[string]rollout.Hold{"h": {Select: policy.MustSelect("canary"), Reason: "look", Until: w.now.Add(2 * time.Hour)}},
	})
	w.promote("web", 1, "/new")
	w.staged()
	if s := w.run("web").State; s != rollout.Planned {
		t.Errorf("in a freeze it is %s", s)
	}
	w.wait(59 * time.Minute)
	if n := w.e.Channels["web"].Flight; n != 0 {
		t.Fatal("somebody is granted in a freeze")
	}
	w.wait(2 * time.Minute)
	if n := w.e.Channels["web"].Flight; n != 4 {
		t.Fatalf("after it %d are granted: %s", n, w.phases())
	}
	if kind, why := w.e.Why("web-1"); kind != api.WaitHold || why != "look" {
		t.Errorf("web-1 waits for %s: %s", kind, why)
	}
	w.wait(time.Hour)
	if p := w.row("web-1").Phase; p != rollout.Granted {
		t.Errorf("after the hold web-1 is %q", p)
	}
}

// Two budgets, each over hosts of two channels: both are kept, and a host that is
// unavailable already needs none.
func TestBudgets(t *testing.T) {
	w := newWorld(t)
	for _, c := range []string{"a", "b"} {
		w.policy(c, `{"rollout": {"max_errors": 3, "quarantine_after": 0}}`)
		w.add(c, c+"-db-1", map[string]string{"role": "db", "site": "fra"}, "/old")
		w.add(c, c+"-db-2", map[string]string{"role": "db", "site": "ber"}, "/old")
		w.add(c, c+"-web", map[string]string{"role": "web", "site": "fra"}, "/old")
	}
	w.limit(rollout.Limits{Budgets: map[string]rollout.Budget{
		"db":  {Select: policy.MustSelect("role=db"), MaxUnavailable: *policy.Number(1)},
		"fra": {Select: policy.MustSelect("site=fra"), MaxUnavailable: *policy.Share(50)},
	}})
	down := func() (db, fra int) {
		for _, name := range w.names {
			if !w.row(name).Phase.InFlight() {
				continue
			}
			if labels := w.agents[name].level.Labels; labels["role"] == "db" {
				db++
			}
			if w.agents[name].level.Labels["site"] == "fra" {
				fra++
			}
		}
		return db, fra
	}
	w.after = func(*rollout.Changes) {
		if db, fra := down(); db > 1 || fra > 2 {
			t.Fatalf("%d databases and %d hosts in Frankfurt are down", db, fra)
		}
	}
	w.promote("a", 1, "/new")
	w.promote("b", 1, "/new")
	w.staged()
	if db, fra := down(); db != 1 || fra != 2 {
		t.Errorf("%d databases and %d in Frankfurt are down: %s", db, fra, w.phases())
	}
	for _, name := range w.names {
		if !w.row(name).Phase.InFlight() {
			if kind, _ := w.e.Why(name); kind != api.WaitBudget {
				t.Errorf("%s waits for %q", name, kind)
			}
		}
	}
	w.finish()
	for _, name := range w.names {
		if l := w.agents[name].level; l.Current != "/new" {
			t.Errorf("%s runs %s", name, l.Current)
		}
	}
	// A database that has failed takes the budget, also for the fix of the other channel.
	// For its own it needs none.
	w.promote("a", 2, "/worse")
	w.staged()
	bad := ""
	for _, name := range []string{"a-db-1", "a-db-2"} {
		if w.row(name).Phase == rollout.Granted {
			bad = name
		}
	}
	w.agents[bad].goes(api.Failed)
	w.promote("b", 2, "/newer")
	w.staged()
	for _, name := range []string{"b-db-1", "b-db-2"} {
		if p := w.row(name).Phase; p.InFlight() {
			t.Errorf("%s is %s while %s is down", name, p, bad)
		}
	}
	w.promote("a", 3, "/fix")
	w.staged()
	if p := w.row(bad).Phase; p != rollout.Granted {
		t.Errorf("the fix of %s waits for the budget that it takes itself: %q", bad, p)
	}
}

// A budget that one channel frees is room for the other in the same step: nobody else
// would look there again.
func TestBudgetFreedByAnotherChannel(t *testing.T) {
	w := newWorld(t)
	for _, c := range []string{"a", "b"} {
		w.policy(c, `{"rollout": {}}`)
		w.add(c, c+"-1", nil, "/old")
	}
	w.limit(rollout.Limits{Budgets: map[string]rollout.Budget{"all": {MaxUnavailable: *policy.Number(1)}}})
	w.promote("a", 1, "/new")
	w.promote("b", 1, "/new")
	w.staged()
	if got := w.phases(); got != "a-1 granted, b-1 " {
		t.Fatal(got)
	}
	w.agents["a-1"].goes(api.OK)
	if got := w.phases(); got != "a-1 well, b-1 granted" {
		t.Error(got)
	}
}
