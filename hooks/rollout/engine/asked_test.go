package engine_test

import (
	"testing"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
)

// A person on the server asks a host to leave a release, past the roll-out: it is back, and no
// error. What it does by itself stays one, also if it is asked after that.
func TestAskedToLeave(t *testing.T) {
	for _, state := range []string{"waiting", "granted", "well", "armed", "timed out"} {
		t.Run(state, func(t *testing.T) {
			w, x := reached(t, state, "replace")
			want := rollout.Fault("")
			if state == "timed out" {
				want = rollout.TimedOut // that it was, before it was asked
				x.end(x.entry(), api.OK)
				x.report()
			}
			x.deniesAll, x.level.DeniesBytes = true, true // an agent of before
			x.obey("revert")
			x.level.Asked = true
			x.report()
			r := w.row("x")
			if r.Phase != rollout.Back && state != "waiting" || r.Fault != want || x.level.State != api.Reverted {
				t.Fatalf("it is %s: %s", x.level.State, text(r))
			}
			if s := w.run("web"); s.State != rollout.Running {
				t.Errorf("the roll-out is %s", text(s))
			}
			x.level.Asked = false
			w.finish()
			if s := w.run("web"); s.State != rollout.Completed {
				t.Errorf("the roll-out is %s", text(s))
			}
			w.promote("web", 2, "/one") // the same bytes are no ban
			w.finish()
			w.endsOn(t, 2, "/one")
		})
	}
	w, x := reached(t, "reverted", "replace")
	x.level.Asked = true
	x.report()
	if r := w.row("x"); r.Phase != rollout.Bad || r.Fault != rollout.Reverted {
		t.Errorf("it had gone back by itself: %s", text(r))
	}
}
