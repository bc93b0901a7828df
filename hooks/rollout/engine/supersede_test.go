package engine_test

import (
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
)

// reached brings a world with the hosts x and y, of channel web, to where release 1 runs
// and x is in a state of it. y has staged it and waits.
func reached(t *testing.T, state, supersede string) (w *world, x *agent) {
	w = newWorld(t)
	w.policy("web", `{"rollout": {"max_concurrency": 1, "max_errors": 5, "quarantine_after": 0, "on_supersede": "`+supersede+`"}}`)
	p := w.policies["web"]
	p.Reboots = true
	w.must(p)
	w.policies["web"] = p
	x = w.add("web", "x", nil, "/old")
	y := w.add("web", "y", nil, "/old")
	w.promote("web", 1, "/one")
	first, second := x, y // there is one place
	if state == "waiting" {
		first, second = y, x
	}
	for _, a := range []*agent{first, second, first} {
		a.poll()
		if state != "shown" || a == y {
			a.report()
		}
	}
	step := func(n int, how api.State) {
		for range n {
			x.act(how)
			x.report()
		}
	}
	switch state {
	case "shown", "waiting", "granted":
	case "draining":
		step(1, api.OK)
	case "activating":
		step(2, api.OK)
	case "probation":
		step(3, api.OK)
	case "timed out":
		step(2, api.OK)
		w.wait(31 * time.Minute)
	case "well":
		step(4, api.OK)
	case "armed":
		step(4, api.Armed)
	case "reverted":
		step(4, api.Reverted)
	case "failed":
		step(4, api.Failed)
	case "offline":
		x.away = w.now
		w.must(rollout.Seen{Host: "x", Away: w.now})
		w.wait(time.Hour)
	default:
		t.Fatalf("what is %s?", state)
	}
	return w, x
}

// finish lets all hosts go on as agents do, until nothing happens any more.
func (w *world) finish() {
	w.t.Helper()
	for range 60 {
		for _, name := range w.names {
			a := w.agents[name]
			if a.away != (time.Time{}) {
				continue
			}
			a.poll()
			a.act(api.OK)
			if e := a.entry(); e != nil && a.level.State == api.Armed {
				a.level.Current, a.level.Confirmed, a.level.State = e.Path, e.Path, api.OK
			}
			a.report()
		}
		w.wait(time.Minute)
	}
}

var hostStates = []string{"shown", "waiting", "granted", "draining", "activating", "probation", "timed out", "well", "armed", "reverted", "failed", "offline"}

// A newer release replaces one in mid-way: who has begun ends that first, untouched
// hosts are never granted the old one again, and all end on the new one.
func TestReplace(t *testing.T) {
	for _, state := range hostStates {
		t.Run(state, func(t *testing.T) {
			w, x := reached(t, state, "replace")
			under := busy(x.level.State)
			w.promote("web", 2, "/two")
			if s := w.run("web"); s.Seq != 2 || s.State != rollout.Running {
				t.Fatalf("the roll-out is %s", text(s))
			}
			if n := len(w.decisions); under {
				if ans := w.e.Answer("x", w.now); ans.Seq != 1 {
					t.Errorf("it is at release 1, and told %+v", ans)
				}
				if got := w.e.Channels["web"].Flight; got != 1 {
					t.Errorf("%d hosts hold a place", got)
				}
				w.wait(time.Minute)
				for _, d := range w.decisions[n:] {
					if d.Kind == "granted" {
						t.Errorf("%s is granted, and x holds the only place", d.Host)
					}
				}
			}
			since := len(w.decisions)
			if state == "offline" {
				w.finish() // y does not wait for it
				w.wait(72 * time.Hour)
				if l := w.agents["y"].level; l.Current != "/two" {
					t.Errorf("y runs %s", l.Current)
				}
				x.report()
			}
			w.finish()
			for _, d := range w.decisions[since:] {
				if d.Kind == "granted" && d.Seq != 2 {
					t.Errorf("%s is granted the old release", d.Host)
				}
			}
			w.endsOn(t, 2, "/two")
		})
	}
}

// A queued release begins when the one before it is over, and the newest is kept.
func TestQueue(t *testing.T) {
	for _, state := range hostStates {
		t.Run(state, func(t *testing.T) {
			w, x := reached(t, state, "queue")
			w.promote("web", 2, "/two")
			w.promote("web", 3, "/three")
			if s := w.run("web"); s.Seq != 1 || w.e.Channels["web"].Row.Queued.Seq != 3 {
				t.Fatalf("the roll-out is %s", text(s))
			}
			if ans := w.e.Answer("y", w.now); ans.Seq > 1 {
				t.Errorf("a queued release is shown: %+v", ans)
			}
			w.finish()
			if state == "offline" {
				x.report()
				w.finish()
			}
			for _, d := range w.decisions {
				if d.Seq == 2 && d.Kind != "queued" {
					t.Errorf("release 2 is not the newest: %+v", d)
				}
			}
			w.endsOn(t, 3, "/three")
		})
	}
}

// With reject a newer release is refused until the one before is over.
func TestReject(t *testing.T) {
	for _, state := range hostStates {
		t.Run(state, func(t *testing.T) {
			w, x := reached(t, state, "reject")
			w.put("web", 2, all("/two"))
			_, err := w.step(rollout.Promote{Channel: "web", Seq: 2})
			if r, ok := err.(*rollout.Refusal); !ok || r.Kind != "in_progress" { //nolint:errorlint // it is never wrapped
				t.Fatalf("it is taken: %v", err)
			}
			if w.run("web").Seq != 1 || w.e.Channels["web"].Row.Queued != nil {
				t.Error("what was refused has changed something")
			}
			if x.report(); state == "reverted" || state == "failed" {
				w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Retry, By: "x"})
			}
			w.finish()
			w.endsOn(t, 1, "/one")
			w.promote("web", 3, "/three")
			w.finish()
			w.endsOn(t, 3, "/three")
		})
	}
}

// A fix for a roll-out that has halted is taken, whatever on_supersede says.
func TestFixForHalted(t *testing.T) {
	for _, word := range []string{"replace", "queue", "reject"} {
		w := five(t, `{"rollout": {"max_concurrency": 1, "on_supersede": "`+word+`"}}`)
		w.promote("web", 1, "/bad")
		w.staged()
		w.agents[w.inPhase(rollout.Granted)].goes(api.Failed)
		if s := w.run("web").State; s != rollout.Halted {
			t.Fatalf("it is %s", s)
		}
		w.promote("web", 2, "/fixed")
		w.finish()
		w.endsOn(t, 2, "/fixed")
	}
}

// inPhase is a host of that phase.
func (w *world) inPhase(p rollout.Phase) string {
	w.t.Helper()
	for _, name := range w.names {
		if w.row(name).Phase == p {
			return name
		}
	}
	w.t.Fatalf("no host is %s: %s", p, w.phases())
	return ""
}

// endsOn holds that a release is completed, and that every host runs it.
func (w *world) endsOn(t *testing.T, seq int64, path string) {
	t.Helper()
	if s := w.run("web"); s.Seq != seq || s.State != rollout.Completed {
		t.Errorf("the roll-out is %s; %s", text(s), w.phases())
	}
	for _, name := range w.names {
		if l := w.agents[name].level; l.Current != path || l.State != api.OK {
			t.Errorf("%s is %s with %s; its row: %s", name, l.State, l.Current, text(w.row(name)))
		}
	}
	if n := w.e.Channels["web"].Flight; n != 0 {
		t.Errorf("%d hosts hold a place", n)
	}
}
