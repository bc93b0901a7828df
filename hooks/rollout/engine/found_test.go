package engine_test

import (
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
)

// Faults that random worlds have found, as short as they can be told.

// A host that was timed out before it began goes on with the same attempt after a
// retry: what it says of it counts.
func TestFoundTimedOutBeforeItBegan(t *testing.T) {
	w := newWorld(t)
	w.policy("web", `{"rollout": {"prefetch": false, "attempt_timeout": "20m"}}`)
	a := w.add("web", "a", nil, "/old")
	w.promote("web", 1, "/new")
	a.poll()
	a.report() // it stages by its grant, for too long
	w.wait(30 * time.Minute)
	if r := w.row("a"); r.Phase != rollout.Bad || r.Fault != rollout.TimedOut {
		t.Fatalf("it is %s", text(r))
	}
	w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Retry, By: "x"})
	a.poll()
	a.act(api.OK)
	a.report()
	if n := w.e.Channels["web"].Flight; n != 1 || w.row("a").Phase != rollout.Begun {
		t.Fatalf("it is %s, and %d hold a place: %s", a.level.State, n, text(w.row("a")))
	}
	for range 3 {
		a.act(api.Reverted)
		a.report()
	}
	if r := w.row("a"); r.Phase != rollout.Bad || r.Fault != rollout.Reverted {
		t.Errorf("it went back, and its row is %s", text(r))
	}
}

// What such a host says before it begins counts, too.
func TestFoundRejectedAfterRetry(t *testing.T) {
	w := newWorld(t)
	w.policy("web", `{"rollout": {"prefetch": false, "attempt_timeout": "20m"}}`)
	a := w.add("web", "a", nil, "/old")
	w.promote("web", 1, "/new")
	a.poll()
	a.report()
	w.wait(30 * time.Minute)
	w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Retry, By: "x"})
	a.level.State = api.Rejected
	a.report()
	if r := w.row("a"); r.Phase != rollout.Bad || r.Fault != rollout.Rejected {
		t.Errorf("its row is %s", text(r))
	}
}

// A host went back while nobody heard of it, and is next heard of with a newer release: the
// attempt at that one is not over with the way back.
func TestFoundWentBackUnheard(t *testing.T) {
	w, x := reached(t, "activating", "replace")
	w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Abort, By: "x"})
	x.goesAway()
	w.wait(time.Hour)
	w.promote("web", 2, "/two")
	l := &x.level
	l.State, l.Seq, l.HighestSeq, l.Attempt = api.Staged, 2, 2, "x-2"
	x.report()
	if r := w.row("x"); r.Phase != rollout.Granted || r.Seq != 2 {
		t.Fatalf("its row is %s", text(r))
	}
	l.State = api.Reverted
	x.report()
	if r := w.row("x"); r.Phase != rollout.Bad || r.Fault != rollout.Reverted {
		t.Errorf("its row is %s", text(r))
	}
}

// A grant that is taken back in the step in which a roll-out halts may have ended
// before, by a policy that was changed since: time does not stand still by it.
func TestFoundGrantEndedBefore(t *testing.T) {
	w := newWorld(t)
	w.policy("web", `{"rollout": {"prefetch": false, "attempt_timeout": "20m"}}`)
	slow, bad := w.add("web", "slow", nil, "/old"), w.add("web", "bad", nil, "/old")
	w.promote("web", 1, "/new")
	slow.poll()
	slow.report()
	w.policy("web", `{"rollout": {"prefetch": false, "attempt_timeout": "2h"}}`)
	bad.poll()
	bad.report()
	w.wait(30 * time.Minute)
	bad.level.State = api.Rejected
	bad.report()
	if s := w.run("web").State; s != rollout.Halted {
		t.Fatalf("it is %s", s)
	}
	if next := w.last.Next; !next.IsZero() && !next.After(w.now) {
		t.Errorf("at %s the engine wants to be called at %s", w.now, next)
	}
	if p := w.row("slow").Phase; p != rollout.Untouched {
		t.Errorf("its grant is over, and it is %s", p)
	}
}

// A host that was asked to go back, and neither does nor says why, gets the next
// release as others do, and holds no place for ever.
func TestFoundHostThatStays(t *testing.T) {
	for _, state := range []string{"well", "armed"} {
		w, x := reached(t, state, "replace")
		x.deaf = true
		w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Abort, By: "x"})
		w.wait(rollout.Lease + rollout.Grace) // y has the place till then
		x.poll()
		x.report()
		w.wait(29 * time.Minute)
		if p := w.row("x").Phase; p != rollout.Reverting || w.run("web").State != rollout.Aborting {
			t.Fatalf("it is %s, and the roll-out %s", p, w.run("web").State)
		}
		w.wait(2 * time.Minute)
		if r := w.row("x"); r.Phase != rollout.Reverting || r.Fault != rollout.TimedOut || w.run("web").State != rollout.Aborted {
			t.Fatalf("it is %s, and the roll-out %s", text(r), w.run("web").State)
		}
		w.promote("web", 2, "/two")
		w.finish()
		w.endsOn(t, 2, "/two")
	}
}

// A system that one channel puts into quarantine is given to nobody of another either,
// from that moment; and from the moment on in which that is over it is.
func TestFoundQuarantineOfAnotherChannel(t *testing.T) {
	w := newWorld(t)
	w.policy("a", `{"rollout": {}}`)
	w.policy("b", `{"rollout": {"max_concurrency": 1}}`)
	bad := w.add("a", "bad", nil, "/old")
	one, two := w.add("b", "one", nil, "/old"), w.add("b", "two", nil, "/old")
	w.promote("a", 1, "/new")
	w.promote("b", 1, "/new")
	for _, a := range []*agent{one, two} {
		a.poll()
		a.report()
	}
	if got := w.phases(); got != "bad , one granted, two " {
		t.Fatal(got)
	}
	bad.goes(api.Reverted)
	if ans := w.e.Answer("one", w.now); w.row("one").Phase != rollout.Withdrawn || ans.Grant != "" || ans.Wait != api.WaitQuarantine {
		t.Errorf("it is %s, and told %+v", w.row("one").Phase, ans)
	}
	w.wait(time.Hour)
	if n := w.e.Channels["b"].Flight; n != 0 {
		t.Errorf("%d hosts of b are granted what is in quarantine", n)
	}
	w.put("a", 2, all("/new"))
	w.must(rollout.Promote{Channel: "a", Seq: 2, Force: true})
	w.must(rollout.Verb{Channel: "a", Seq: 2, Verb: rollout.Retry, By: "x"})
	bad.denied = nil
	bad.goes(api.OK) // it was the network: it completes well
	if len(w.quarantine) != 0 || w.e.Channels["b"].Flight != 1 {
		t.Errorf("quarantine: %v; %s", w.quarantine, w.phases())
	}
}

// An older agent denies the bytes of what it was told to leave, under each seq. What it
// says of them before its grant, which comes with the directive to try again, is no error.
func TestFoundDeniedTwice(t *testing.T) {
	w := newWorld(t)
	w.policy("web", `{"rollout": {}}`)
	a := w.add("web", "a", nil, "/old")
	a.deniesAll, a.level.DeniesBytes = true, true
	a.report()
	w.add("web", "b", nil, "/old")
	w.promote("web", 1, "/x")
	a.goes(api.OK)
	w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Abort, By: "x"})
	a.poll()
	a.level.Held = true
	a.report()
	for seq := range int64(2) {
		w.promote("web", 2+seq, "/x")
		a.poll()
		if a.report(); a.level.State != api.Reverted || w.row("a").Phase == rollout.Bad {
			t.Fatalf("it is %s; its row: %s", a.level.State, text(w.row("a")))
		}
	}
	a.level.Held = false
	if a.report(); w.row("a").Phase != rollout.Granted {
		t.Fatalf("its row: %s", text(w.row("a")))
	}
	a.goes(api.OK)
	w.finish()
	w.endsOn(t, 3, "/x")
}

// The same for one that gave its place back before it had changed anything, and is asked
// to leave all the same.
func TestFoundHostThatStaysBefore(t *testing.T) {
	for _, why := range []api.WaitKind{api.WaitInhibited, api.WaitWave} {
		w, x := reached(t, "draining", "replace")
		x.deaf = true
		w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Abort, By: "x"})
		x.level.State, x.level.Waiting = api.WaitingState, why
		x.report()
		w.wait(time.Hour)
		if r := w.row("x"); r.Phase != rollout.Reverting || r.Fault != rollout.TimedOut || w.run("web").State != rollout.Aborted {
			t.Fatalf("it is %s, and the roll-out %s", text(r), w.run("web").State)
		}
		w.promote("web", 2, "/two")
		w.finish()
		w.endsOn(t, 2, "/two")
	}
}

// Hosts that wait for others which ended badly never get their turn, though max_errors
// lets that many end so: once nothing else is to come the roll-out halts and says it.
func TestFoundAfterOfBadOnes(t *testing.T) {
	bad := func(t *testing.T) (w *world, db, app *agent) {
		w = newWorld(t)
		w.policy("web", `{"rollout": {"after": [{"first": "role=db", "then": "role=app"}], "max_errors": 2, "quarantine_after": 0}}`)
		db = w.add("web", "db", map[string]string{"role": "db"}, "/old")
		app = w.add("web", "app", map[string]string{"role": "app"}, "/old")
		web := w.add("web", "web", nil, "/old")
		w.promote("web", 1, "/new")
		w.staged()
		db.goes(api.Reverted)
		if s := w.run("web"); s.State != rollout.Running {
			t.Fatalf("web is on its way: %s", text(s))
		}
		if kind, why := w.e.Why("app"); kind != api.WaitAfter || !strings.Contains(why, "ended badly") {
			t.Errorf("app waits for %s: %s", kind, why)
		}
		web.goes(api.OK)
		if s := w.run("web"); s.State != rollout.Halted || !strings.HasPrefix(s.Why, "all 1 hosts of wave 1 that have not begun wait (after) for others that ended badly") {
			t.Fatalf("it is %s", text(s))
		}
		return w, db, app
	}
	t.Run("retry", func(t *testing.T) {
		w, _, _ := bad(t)
		w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Retry, By: "x"})
		if p := w.row("app").Phase; p != rollout.Untouched {
			t.Errorf("app is %s", p)
		}
		w.finish()
		w.endsOn(t, 1, "/new")
	})
	t.Run("resume", func(t *testing.T) {
		w, db, app := bad(t)
		w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Resume, By: "x"})
		app.goes(api.OK)
		if s := w.run("web"); s.State != rollout.Completed || db.level.Current != "/old" {
			t.Errorf("it is %s", text(s))
		}
	})
}

// A host that is armed has had its turn: that others before it end badly afterwards holds
// it back no more.
func TestArmedIsNotHeldBack(t *testing.T) {
	w := newWorld(t)
	w.policy("web", `{"rollout": {"after": [{"first": "role=db", "then": "role=app"}], "max_errors": 2, "quarantine_after": 0}}`)
	p := w.policies["web"]
	p.Reboots = true
	w.must(p)
	db := w.add("web", "db", map[string]string{"role": "db"}, "/old")
	app := w.add("web", "app", map[string]string{"role": "app"}, "/old")
	w.promote("web", 1, "/new")
	w.staged()
	db.goes(api.OK)
	app.goes(api.Armed)
	db.level.State, db.level.Current, db.level.Profile = api.Reverted, "/old", "/old"
	db.report()
	if s := w.run("web"); s.State != rollout.Running {
		t.Fatalf("it is %s", text(s))
	}
	app.rebooted()
	if s := w.run("web"); s.State != rollout.Completed {
		t.Errorf("it is %s", text(s))
	}
}

// Without prefetch it says so only after its grant, which tells it to try again, then. Of several
// systems that it was told to leave it denies each.
func TestFoundDeniedAfterItsGrant(t *testing.T) {
	w := newWorld(t)
	w.policy("web", `{"rollout": {"prefetch": false, "bake": "1h"}}`)
	a := w.add("web", "a", nil, "/old")
	a.deniesAll, a.level.DeniesBytes = true, true
	a.report()
	for seq, path := range []string{"/x", "/y"} {
		w.promote("web", int64(seq+1), path)
		a.goes(api.OK)
		w.must(rollout.Verb{Channel: "web", Seq: int64(seq + 1), Verb: rollout.Abort, By: "x"})
		w.finish()
	}
	for seq, path := range []string{"/x", "/y"} {
		w.promote("web", int64(seq+3), path)
		w.finish()
		w.wait(time.Hour)
		w.endsOn(t, int64(seq+3), path)
	}
	w.promote("web", 5, "/z")
	a.goes(api.Reverted) // by itself
	if r := w.row("a"); r.Fault != rollout.Reverted {
		t.Fatalf("its row: %s", text(r))
	}
	w.put("web", 6, all("/z"))
	w.must(rollout.Promote{Channel: "web", Seq: 6, Force: true})
	a.poll()
	if a.report(); w.row("a").Phase != rollout.Bad {
		t.Errorf("what it found out by itself it tries once more: %s", text(w.row("a")))
	}
}

// A grant that was taken back by a newer release holds its place no longer than until the
// host speaks of that.
func TestFoundGrantOfBefore(t *testing.T) {
	w := newWorld(t)
	w.policy("web", `{"rollout": {}}`)
	a := w.add("web", "a", nil, "/old")
	w.promote("web", 1, "/x")
	a.poll()
	a.report()
	if r := w.row("a"); r.Phase != rollout.Granted {
		t.Fatalf("its row: %s", text(r))
	}
	w.promote("web", 2, "/y")
	if r := w.row("a"); r.Phase != rollout.Withdrawn {
		t.Fatalf("its row: %s", text(r))
	}
	a.poll() // in place of using the grant
	a.report()
	if r := w.row("a"); r.Phase != rollout.Granted || r.Seq != 2 {
		t.Errorf("its row: %s", text(r))
	}
}
