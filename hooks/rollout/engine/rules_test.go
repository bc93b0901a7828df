package engine_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/roster"
)

// fleetOf is hosts web-0 and so on with the same policy, which have fetched release 1.
func fleetOf(t *testing.T, hosts int, policy string) *world {
	t.Helper()
	w := newWorld(t)
	w.policy("web", policy)
	for i := range hosts {
		w.add("web", fmt.Sprintf("web-%d", i), nil, "/old")
	}
	w.promote("web", 1, "/new")
	w.staged()
	return w
}

// A wave with so many bad ends that it cannot have enough hosts that are well halts, though
// there were not too many for the whole roll-out.
func TestThresholdOutOfReach(t *testing.T) {
	w := fleetOf(t, 10, `{"rollout": {"max_concurrency": 1, "max_errors": 9, "success_threshold": "80%", "quarantine_after": 0}}`)
	for i := 1; i <= 3; i++ {
		for _, name := range w.names {
			if w.row(name).Phase == rollout.Granted {
				w.agents[name].goes(api.Reverted)
				break
			}
		}
		if r := w.run("web"); (r.State == rollout.Halted) != (i == 3) {
			t.Fatalf("after %d bad ends it is %s", i, text(r))
		}
	}
	if why := w.run("web").Why; !strings.Contains(why, "cannot have enough hosts that are well any more: 8 of 10 have to be") {
		t.Errorf("it says %s", why)
	}
}

// Who takes no part is not counted, and listed with its reason: the wave passes without, and
// the host takes the release late.
func TestNotCounted(t *testing.T) {
	for kind, set := range map[api.WaitKind]func(a *agent, on bool){
		api.WaitHold:   func(a *agent, on bool) { a.level.Held = on },
		api.WaitPaused: func(a *agent, on bool) { a.level.Paused = on },
		"too old":      func(a *agent, on bool) { a.level.TooOld = on },
		api.WaitOffline: func(a *agent, on bool) {
			if on {
				a.goesAway()
				a.w.wait(11 * time.Minute)
			}
		},
		"drifted": func(a *agent, on bool) {
			if a.level.State = api.Drifted; !on {
				a.level.State = api.Staged
			}
		},
	} {
		t.Run(string(kind), func(t *testing.T) {
			w := fleetOf(t, 3, `{"rollout": {"waves": [{"approve": true}], "max_concurrency": 1}}`)
			x := w.agents[w.names[slices.IndexFunc(w.names, func(n string) bool { return w.row(n).Phase == rollout.Untouched })]]
			if set(x, true); kind != api.WaitOffline {
				x.report()
			}
			for range 2 {
				for _, name := range w.names {
					if w.row(name).Phase == rollout.Granted {
						w.agents[name].goes(api.OK)
					}
				}
			}
			r := w.run("web")
			if n := w.e.Channels["web"].Run.Waves[0]; r.Waves[0].Met.IsZero() || n[roster.Aside] != 1 || n[roster.Well] != 2 {
				t.Fatalf("it counts %v: %s", n, text(r))
			}
			if is, _ := w.e.Why(x.level.Host); (kind == api.WaitHold || kind == api.WaitPaused || kind == api.WaitOffline) && is != kind {
				t.Errorf("it waits for %q", is)
			}
			w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Advance, By: "x"})
			if r := w.run("web"); r.State != rollout.Completed {
				t.Fatalf("it is %s", text(r))
			}
			set(x, false)
			x.report()
			x.goes(api.OK)
			w.endsOn(t, 1, "/new")
		})
	}
}

// The timeout of a wave does not run while no window is open, or in a freeze.
func TestTimeoutOutsideOfWindows(t *testing.T) {
	w := fleetOf(t, 1, `{"rollout": {"timeout": "2h", "attempt_timeout": "24h"}}`)
	w.wait(time.Hour)
	w.must(rollout.Window{Channel: "web"})
	w.wait(10 * time.Hour)
	w.must(rollout.Window{Channel: "web", Open: true}, rollout.Limits{Freeze: &rollout.Hold{Reason: "audit"}})
	w.wait(10 * time.Hour)
	w.must(rollout.Limits{})
	w.wait(59 * time.Minute)
	if r := w.run("web"); r.State != rollout.Running {
		t.Fatalf("it is %s", text(r))
	}
	w.wait(2 * time.Minute)
	if r := w.run("web"); r.State != rollout.Halted || !strings.Contains(r.Why, "2h") {
		t.Errorf("it is %s", text(r))
	}
}

// Hosts that come late to a release that has completed are granted one by one, and too many bad
// ends among them halt it again: then it is not the last that completed well.
func TestLateHosts(t *testing.T) {
	w := fleetOf(t, 6, `{"rollout": {"max_errors": 1, "quarantine_after": 0}}`)
	for _, name := range w.names[3:] {
		w.agents[name].level.Held = true
		w.agents[name].report()
	}
	w.finish()
	if r := w.run("web"); r.State != rollout.Completed || w.e.Channels["web"].Row.LastWell() != 1 {
		t.Fatalf("it is %s", text(r))
	}
	for _, name := range w.names[3:] {
		w.agents[name].level.Held = false
		w.agents[name].report()
	}
	for i := range 2 {
		var granted []string
		for _, name := range w.names {
			if w.row(name).Phase.InFlight() {
				granted = append(granted, name)
			}
		}
		if len(granted) != 1 {
			t.Fatalf("%v are in flight", granted)
		}
		w.agents[granted[0]].goes(api.Reverted)
		if r := w.run("web"); (r.State == rollout.Halted) != (i == 1) {
			t.Fatalf("after %d bad ends it is %s", i+1, text(r))
		}
	}
	if w.finish(); w.e.Channels["web"].Flight != 0 || w.e.Channels["web"].Row.LastWell() != 0 {
		t.Errorf("%s; the last that completed well is %d", w.phases(), w.e.Channels["web"].Row.LastWell())
	}
}

// A release that changes nobody has completed when it is made, and a wave that changes nobody is
// passed over, whatever it would wait for.
func TestNobodyHasToChange(t *testing.T) {
	w := newWorld(t)
	w.policy("web", `{"rollout": {"waves": [{"select": "canary", "bake": "10h", "approve": true}, {}]}}`)
	w.add("web", "canary", map[string]string{"canary": "yes"}, "/old")
	w.add("web", "other", nil, "/old")
	if w.promote("web", 1, "/old"); w.run("web").State != rollout.Completed || len(w.granted()) > 0 {
		t.Fatalf("it is %s", text(w.run("web")))
	}
	w.put("web", 2, func(target string) string { return map[string]string{"canary": "/old", "other": "/new"}[target] })
	w.must(rollout.Promote{Channel: "web", Seq: 2})
	if r := w.run("web"); len(r.Waves) != 2 || r.Waves[0].Size != 0 {
		t.Fatalf("it is %s", text(r))
	}
	w.finish()
	if s := w.run("web").State; s != rollout.Completed || w.agents["other"].level.Current != "/new" {
		t.Errorf("it is %s", s)
	}
}

// A host that waits for reasons of its own gives its grant back, which is no error, and comes to the
// end of the line; its place is free a minute after it has said that it let go.
func TestGivesItsGrantBack(t *testing.T) {
	w := fleetOf(t, 3, `{"rollout": {"max_concurrency": 1}}`)
	i := slices.IndexFunc(w.names, func(n string) bool { return w.row(n).Phase == rollout.Granted })
	x := w.agents[w.names[i]]
	x.poll()
	x.act(api.OK)
	x.report()
	x.act(api.WaitingState) // drained, and inhibited
	x.report()
	if r := w.row(x.level.Host); r.Phase != rollout.Withdrawn || r.Fault != "" {
		t.Fatalf("its row is %s", text(r))
	}
	x.poll()
	x.level.Waiting = api.WaitInhibited
	x.report()
	w.wait(61 * time.Second)
	if n := len(slices.DeleteFunc(slices.Clone(w.names), func(n string) bool { return w.row(n).Phase != rollout.Granted })); n != 1 || w.row(x.level.Host).Phase != rollout.Untouched || w.row(x.level.Host).Turn != 1 {
		t.Fatalf("%s", w.phases())
	}
	if w.finish(); w.e.Channels["web"].Run.Faults != 0 {
		t.Errorf("%d errors", w.e.Channels["web"].Run.Faults)
	}
	w.endsOn(t, 1, "/new")
}

// The rows of a backup are older than what hosts have done since. Nobody activates a release
// twice by that, who has begun holds a place, and the roll-out comes to its end.
func TestRestoredMidWay(t *testing.T) {
	for _, at := range []int{0, 1, 3, 5, 8} {
		w := fleetOf(t, 5, `{"rollout": {"waves": [{"max": 1}, {}], "max_concurrency": 2}}`)
		round := func() {
			for _, name := range w.names {
				w.agents[name].poll()
				w.agents[name].act(api.OK)
				w.agents[name].report()
			}
		}
		for range at {
			round()
		}
		hosts, runs, chans := maps.Clone(w.hosts), maps.Clone(w.runs), maps.Clone(w.chans)
		for range 4 {
			round()
		}
		w.hosts, w.runs, w.chans = hosts, runs, chans
		w.now = w.now.Add(time.Hour)
		w.restart(t)
		for _, name := range w.names {
			a := w.agents[name]
			if a.report(); busy(a.level.State) && !w.row(name).Phase.InFlight() {
				t.Errorf("after %d rounds: %s is %s and holds no place", at, name, a.level.State)
			}
		}
		w.finish()
		w.endsOn(t, 1, "/new")
		for _, name := range w.names {
			for attempt, n := range w.agents[name].activated {
				if n != 1 {
					t.Errorf("after %d rounds: %s was activated %d times", at, attempt, n)
				}
			}
		}
	}
}

// What a host waits for, as it is told, is the same through a wave, whatever becomes of the others.
func TestWordsAreConstant(t *testing.T) {
	w := fleetOf(t, 8, `{"rollout": {"waves": [{"max": 7}, {}], "max_concurrency": 2}}`)
	last := w.names[slices.IndexFunc(w.names, func(n string) bool { return w.row(n).Wave == 0 })]
	before, n := w.e.Answer(last, w.now), len(w.woken)
	for w.row(last).Wave == 0 {
		for _, name := range w.names {
			if name != last {
				w.agents[name].poll()
				w.agents[name].act(api.OK)
				w.agents[name].report()
			}
		}
		if is := w.e.Answer(last, w.now); w.row(last).Wave == 0 && (is != before || w.wasWoken(last, n)) {
			t.Fatalf("it was told %+v, and is told %+v", before, is)
		}
	}
	if before.Wait != api.WaitWave {
		t.Errorf("it was told %+v", before)
	}
}
