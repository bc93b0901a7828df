package engine_test

import (
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
)

// baking is a world in which the canary is well, and bakes for ten minutes.
func baking(t *testing.T) (w *world, answer func(c rollout.Checked)) {
	w = five(t, `{"rollout": {"waves": [{"name": "canary", "max": 1, "bake": "10m", "checks": ["rate"]}, {}]}}`)
	w.promote("web", 1, "/new")
	w.staged()
	w.agents[w.inPhase(rollout.Granted)].goes(api.OK)
	return w, func(c rollout.Checked) {
		c.Channel, c.Seq, c.Wave, c.Name, c.Asked = "web", 1, 1, "rate", w.now
		w.must(c)
	}
}

// A check that says no halts at once, also after it said yes.
func TestCheckSaysNo(t *testing.T) {
	w, answer := baking(t)
	answer(rollout.Checked{OK: true})
	w.wait(5 * time.Minute)
	answer(rollout.Checked{Detail: "5 % of requests fail"})
	if r := w.run("web"); r.State != rollout.Halted || !strings.Contains(r.Why, "5 % of requests fail") {
		t.Errorf("it is %s", text(r))
	}
}

// An answer stands for its time only: one at the beginning of a bake says nothing of its end.
func TestCheckFallsSilent(t *testing.T) {
	w, answer := baking(t)
	answer(rollout.Checked{OK: true, Stands: 2 * time.Minute})
	rev := w.run("web").Rev
	w.wait(time.Minute)
	answer(rollout.Checked{OK: true, Stands: 2 * time.Minute})
	if r := w.run("web"); r.Rev != rev || !strings.Contains(w.runs["web-1"], `"at":"2026-11-30T12:01:00Z"`) {
		t.Errorf("the same answer again: %s", w.runs["web-1"])
	}
	answer(rollout.Checked{None: true, Detail: "connection refused", Stands: 2 * time.Minute})
	w.wait(9*time.Minute + 30*time.Second)
	if kind, why := w.e.Why("web-5"); kind != api.WaitCheck || !strings.Contains(why, "the check rate: connection refused") {
		t.Errorf("it waits for %s: %s", kind, why)
	}
	w.wait(time.Minute)
	if r := w.run("web"); r.State != rollout.Halted || r.Why != "the check rate has not answered in the bake of canary since 12:01:00: connection refused" {
		t.Errorf("it is %s", text(r))
	}
}

// Who answers again in time passes.
func TestCheckAnswersAgain(t *testing.T) {
	w, answer := baking(t)
	answer(rollout.Checked{None: true, Detail: "connection refused", Stands: 2 * time.Minute})
	w.wait(9 * time.Minute)
	answer(rollout.Checked{OK: true, Stands: 2 * time.Minute})
	answer(rollout.Checked{None: true, Detail: "timeout", Stands: 2 * time.Minute}) // the yes stands
	w.wait(time.Minute)
	if r := w.run("web"); r.State != rollout.Running || len(r.Waves) != 2 {
		t.Errorf("it is %s", text(r))
	}
}

// Of a check that never answers the halt says why.
func TestCheckNeverAnswers(t *testing.T) {
	w, answer := baking(t)
	answer(rollout.Checked{None: true, Detail: "no such host"})
	w.wait(10 * time.Minute)
	if r := w.run("web"); r.State != rollout.Running || len(r.Waves) != 1 {
		t.Fatalf("without an answer it is %s", text(r))
	}
	w.wait(time.Minute)
	if r := w.run("web"); r.State != rollout.Halted || r.Why != "the check rate has not answered through the bake of canary: no such host" {
		t.Errorf("it is %s", text(r))
	}
}
