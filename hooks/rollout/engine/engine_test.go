package engine_test

import (
	"testing"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
)

const canaryPolicy = `{"rollout": {"waves": [{"name": "canary", "select": "canary", "max": 1, "bake": "10m"}, {"max": "40%"}, {"max": "100%"}], "max_concurrency": 2}}`

// five are five hosts, of which web-1 is the canary.
func five(t *testing.T, policy string) *world {
	w := newWorld(t)
	w.policy("web", policy)
	for _, name := range []string{"web-1", "web-2", "web-3", "web-4", "web-5"} {
		labels := map[string]string{"role": "web"}
		if name == "web-1" {
			labels["canary"] = "yes"
		}
		w.add("web", name, labels, "/old")
	}
	return w
}

// staged lets all hosts fetch what they are shown.
func (w *world) staged() {
	for _, name := range w.names {
		w.agents[name].poll()
		w.agents[name].report()
	}
}

func TestWaves(t *testing.T) {
	w := five(t, canaryPolicy)
	w.promote("web", 1, "/new")
	if s := w.run("web").State; s != rollout.Running {
		t.Fatalf("it is %s", s)
	}
	w.staged()
	if got := w.phases(); got != "web-1 granted, web-2 , web-3 , web-4 , web-5 " {
		t.Fatalf("after staging: %s", got)
	}
	w.agents["web-1"].goes(api.OK)
	w.wait(9 * 60e9)
	if n := len(w.run("web").Waves); n != 1 {
		t.Fatalf("%d waves are open before the bake is over", n)
	}
	w.wait(2 * 60e9)
	if n := len(w.run("web").Waves); n != 2 || w.run("web").Waves[1].Size != 2 {
		t.Fatalf("waves: %s", text(w.run("web").Waves))
	}
	for range 2 {
		for _, name := range w.names {
			if w.row(name).Phase == rollout.Granted {
				w.agents[name].goes(api.OK)
			}
		}
	}
	if s := w.run("web").State; s != rollout.Completed {
		t.Fatalf("it is %s: %s, %s", s, w.phases(), text(w.run("web")))
	}
	if w.e.Channels["web"].Row.LastWell() != 1 {
		t.Error("it did not complete well")
	}
}

func TestBadCanary(t *testing.T) {
	w := five(t, canaryPolicy)
	w.promote("web", 1, "/new")
	w.staged()
	w.agents["web-1"].goes(api.Reverted)
	if r := w.run("web"); r.State != rollout.Halted {
		t.Fatalf("it is %s", text(r))
	}
	w.wait(3600e9)
	if got := w.phases(); got != "web-1 bad, web-2 , web-3 , web-4 , web-5 " {
		t.Fatal(got)
	}
	if len(w.quarantine) != 1 {
		t.Errorf("quarantine: %v", w.quarantine)
	}
	w.put("web", 2, all("/new"))
	if _, err := w.step(rollout.Promote{Channel: "web", Seq: 2}); err == nil {
		t.Error("the same system can be promoted again")
	}
	w.promote("web", 3, "/fixed")
	if s := w.run("web").State; s != rollout.Running {
		t.Errorf("the fix is %s", s)
	}
}

// A pause takes grants back; they count until nobody can use them any more.
func TestPause(t *testing.T) {
	w := five(t, `{"rollout": {"max_concurrency": 1}}`)
	w.promote("web", 1, "/new")
	w.staged()
	name := ""
	for _, n := range w.names {
		if w.row(n).Phase == rollout.Granted {
			name = n
		}
	}
	w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Pause, By: "x"})
	if p := w.row(name).Phase; p != rollout.Withdrawn || w.e.Answer(name, w.now).Grant != "" {
		t.Fatalf("it is %s, and told %+v", p, w.e.Answer(name, w.now))
	}
	w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Resume, By: "x"})
	w.wait(rollout.Lease + rollout.Grace - 1e9)
	if n := w.e.Channels["web"].Flight; n != 1 || w.row(name).Phase != rollout.Withdrawn {
		t.Errorf("%d hosts are in flight, and its lease may still be used: %s", n, w.phases())
	}
	w.wait(2e9)
	if p := w.row(name).Phase; p == rollout.Withdrawn {
		t.Error("its lease is over, and it still counts")
	}
}

func TestAfter(t *testing.T) {
	w := newWorld(t)
	w.policy("web", `{"rollout": {"after": [{"first": "role=db", "then": "role=app"}]}}`)
	w.add("web", "db", map[string]string{"role": "db"}, "/old")
	w.add("web", "app", map[string]string{"role": "app"}, "/old")
	w.promote("web", 1, "/new")
	w.staged()
	if got := w.phases(); got != "db granted, app " {
		t.Fatal(got)
	}
	if kind, _ := w.e.Why("app"); kind != api.WaitAfter {
		t.Errorf("it waits for %s", kind)
	}
	w.agents["db"].goes(api.OK)
	w.agents["app"].goes(api.OK)
}
