package engine_test

import (
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
)

// stateOf brings a world's roll-out of release 1 into a state.
func stateOf(t *testing.T, s rollout.State) *world {
	w := five(t, `{"rollout": {"max_concurrency": 1, "quarantine_after": 0}}`)
	if s == rollout.Planned {
		w.must(rollout.Window{Channel: "web"})
	}
	w.promote("web", 1, "/new")
	w.staged()
	say := func(verb string) { w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: verb, By: "x"}) }
	switch s {
	case rollout.Planned, rollout.Running:
	case rollout.Paused:
		say(rollout.Pause)
	case rollout.Halted:
		w.agents[w.inPhase(rollout.Granted)].goes(api.Failed)
	case rollout.Aborting:
		say(rollout.Abort)
	case rollout.Aborted:
		say(rollout.Abort)
		w.wait(time.Hour)
	case rollout.Completed:
		w.finish()
	default:
		t.Fatal(s)
	}
	if got := w.run("web").State; got != s {
		t.Fatalf("it is %s, and should be %s", got, s)
	}
	return w
}

// Each verb in each state: what it leads to, or that it is refused and changes nothing.
func TestVerbs(t *testing.T) {
	verbs := []string{rollout.Pause, rollout.Resume, rollout.Abort, rollout.Retry, rollout.Advance, rollout.Skip}
	table := map[rollout.State]string{
		rollout.Planned:   "paused - aborted - - -", // nobody was touched
		rollout.Running:   "paused - aborting running - completed",
		rollout.Paused:    "- running aborting paused - -",
		rollout.Halted:    "- running aborted running - -",
		rollout.Aborting:  "- - - - - -",
		rollout.Aborted:   "- - - - - -",
		rollout.Completed: "- - - completed - -",
	}
	for state, row := range table {
		for i, want := range strings.Fields(row) {
			t.Run(string(state)+" "+verbs[i], func(t *testing.T) {
				w := stateOf(t, state)
				ev := rollout.Verb{Channel: "web", Seq: 1, Rev: w.run("web").Rev, Verb: verbs[i], By: "ana", Reason: "it smells"}
				if want == "-" {
					w.refused(t, "conflict", ev)
					return
				}
				w.must(ev)
				if got := w.run("web").State; string(got) != want {
					t.Errorf("it is %s", text(w.run("web")))
				}
			})
		}
	}
}

// A verb is about what was looked at: another release, or a roll-out that has changed
// since, is a conflict that says so.
func TestVerbsOfThePast(t *testing.T) {
	w := stateOf(t, rollout.Running)
	rev := w.run("web").Rev
	w.must(rollout.Verb{Channel: "web", Seq: 1, Rev: rev, Verb: rollout.Pause, By: "ana"})
	if words := w.refused(t, "conflict", rollout.Verb{Channel: "web", Seq: 1, Rev: rev, Verb: rollout.Resume, By: "ben"}); !strings.Contains(words, "has changed meanwhile") {
		t.Errorf("it says %q", words)
	}
	w.promote("web", 2, "/newer")
	if words := w.refused(t, "conflict", rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Abort, By: "ben"}); !strings.Contains(words, "is release 2 now, not 1") {
		t.Errorf("it says %q", words)
	}
	w.refused(t, "not_found", rollout.Verb{Channel: "other", Seq: 1, Verb: rollout.Abort, By: "ben"})
	w.refused(t, "conflict", rollout.Verb{Channel: "web", Seq: 2, Verb: "stop", By: "ben"})
	w.refused(t, "conflict", rollout.Verb{Channel: "web", Seq: 2, Verb: rollout.Retry, Host: "web-1", By: "ben"})
}

// A wave that waits for somebody's yes takes it once enough hosts are well, and not
// before; skip ends a wave as it is.
func TestAdvanceAndSkip(t *testing.T) {
	w := five(t, `{"rollout": {"waves": [{"name": "canary", "max": 1, "approve": true}, {"max": "40%"}, {}]}}`)
	w.promote("web", 1, "/new")
	w.staged()
	advance := rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Advance, By: "ana", Reason: "looks good"}
	if words := w.refused(t, "conflict", advance); !strings.Contains(words, "canary of release 1 has not enough hosts") {
		t.Errorf("it says %q", words)
	}
	w.agents[w.inPhase(rollout.Granted)].goes(api.OK)
	w.wait(48 * time.Hour) // it waits for as long as people take
	if r := w.run("web"); r.State != rollout.Running || len(r.Waves) != 1 {
		t.Fatalf("it is %s", text(r))
	}
	if kind, _ := w.e.Why(w.inPhase(rollout.Untouched)); kind != api.WaitApproval {
		t.Errorf("others wait for %q", kind)
	}
	w.must(advance)
	if r := w.run("web"); len(r.Waves) != 2 || r.Waves[0].Approved != "ana: looks good" {
		t.Fatalf("it is %s", text(r))
	}
	if words := w.refused(t, "conflict", advance); !strings.Contains(words, "wave 2 of release 1 waits for nobody's yes") {
		t.Errorf("it says %q", words)
	}
	w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Skip, By: "ana", Reason: "in a hurry"})
	if r := w.run("web"); len(r.Waves) != 3 || r.Waves[1].Skipped != "ana: in a hurry" {
		t.Fatalf("it is %s", text(r))
	}
	w.finish()
	w.endsOn(t, 1, "/new")
}

// Retry of one host leaves the others as they are.
func TestRetryOfOne(t *testing.T) {
	w := five(t, `{"rollout": {"max_errors": 2, "quarantine_after": 0}}`)
	w.promote("web", 1, "/new")
	w.staged()
	for _, name := range []string{"web-1", "web-2"} {
		w.agents[name].goes(api.Reverted)
	}
	w.must(rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Retry, Host: "web-1", By: "ana"})
	w.finish()
	if got := w.phases(); got != "web-1 well, web-2 bad, web-3 well, web-4 well, web-5 well" {
		t.Error(got)
	}
	if r := w.run("web"); r.State != rollout.Completed || !w.e.Channels["web"].Row.Done[0].Well {
		t.Errorf("it is %s", text(r))
	}
}
