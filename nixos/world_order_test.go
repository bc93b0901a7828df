package nixos_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"narwharf/hooks/api"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

func ask(w *sim.World, what string, seq int64, id string, serial int64) {
	w.Wants.Directive = &api.Directive{Type: what, Seq: seq, ID: id, Serial: serial}
}

// fails is a host that has tried release 2 and gone back.
func fails(t *testing.T) *sim.World {
	t.Helper()
	w := world(t, sim.System{CheckFails: true})
	w.Promote(2, pathB, signing.Auto)
	ends(t, w, api.Reverted, pathA, pathA, pathA)
	return w
}

// TestDirectivesHaveAnOrder: what a server says again that was restored from a
// backup is not obeyed, and the host says so; what comes above it is.
func TestDirectivesHaveAnOrder(t *testing.T) {
	w := fails(t)
	tries := func(yes bool, what string) *api.Status {
		t.Helper()
		runs := w.Started()
		ends(t, w, api.Reverted, pathA, pathA, pathA)
		ends(t, w, api.Reverted, pathA, pathA, pathA)
		if got := w.Started() > runs; got != yes {
			t.Fatalf("%s: it tried %v, want %v", what, got, yes)
		}
		return w.Acks[len(w.Acks)-1]
	}
	ask(w, "retry", 2, "r1", 1000)
	if s := tries(true, "the first"); s.DirectiveSerial != 1000 || strings.Contains(s.Error, "directive") {
		t.Errorf("after the first it says %d, %q", s.DirectiveSerial, s.Error)
	}
	tries(false, "the first, again")
	ask(w, "retry", 2, "r2", 2000)
	tries(true, "the second")
	for _, old := range []int64{1000, 1999, 2000, -1, api.MaxSerial + 1} {
		ask(w, "retry", 2, "r1", old)
		before := len(w.Acks)
		s := tries(false, "an old one")
		if s.DirectiveSerial != 2000 || strings.Count(s.Error, "the server asks") != 1 || !strings.Contains(s.Error, "; the server asks") {
			t.Errorf("of %d it says %d, %q", old, s.DirectiveSerial, s.Error)
		}
		if len(w.Acks) > before+3 {
			t.Errorf("of %d it says so %d times", old, len(w.Acks)-before)
		}
	}
	ask(w, "retry", 2, "r3", 2001)
	if s := tries(true, "one above it"); strings.Contains(s.Error, "directive") {
		t.Errorf("it still says %q", s.Error)
	}
	// The next release begins anew, whatever number was said of this one.
	ask(w, "retry", 2, "r4", api.MaxSerial)
	tries(true, "the highest there is")
	w.Promote(3, pathB, signing.Auto)
	tries(false, "the same entry")
	ask(w, "retry", 3, "r5", 5)
	if s := tries(true, "of the next release"); s.DirectiveSerial != 5 {
		t.Errorf("it says %d", s.DirectiveSerial)
	}
}

// TestOldRevert: a revert from a backup does not take a host down that was asked
// to try again since, also one that is paused.
func TestOldRevert(t *testing.T) {
	w := world(t, sim.System{})
	w.Promote(2, pathB, signing.Auto)
	ends(t, w, api.OK, pathB, pathB, pathB)
	ask(w, "revert", 2, "d1", 100)
	ends(t, w, api.Reverted, pathA, pathA, pathA)
	ask(w, "retry", 2, "d2", 200)
	ends(t, w, api.OK, pathB, pathB, pathB)
	ask(w, "revert", 2, "d1", 100)
	for _, p := range []*api.Hold{nil, {By: "kim", Reason: "disk"}} {
		w.Pause = p
		ends(t, w, api.OK, pathB, pathB, pathB)
		if s := w.Acks[len(w.Acks)-1]; !strings.Contains(s.Error, "asks again to revert release 2, by directive 100, and this host has obeyed 200") || s.WaitingFor != nil {
			t.Errorf("paused %v: it says %q, %+v", p != nil, s.Error, s.WaitingFor)
		}
	}
	w.Pause = nil
	ask(w, "revert", 2, "d3", 201)
	ends(t, w, api.Reverted, pathA, pathA, pathA)
}

// TestSecondRetryWhileAway: of what was asked while nobody heard it the last
// word counts, and counts once.
func TestSecondRetryWhileAway(t *testing.T) {
	w := fails(t)
	ask(w, "retry", 2, "r1", 100)
	ends(t, w, api.Reverted, pathA, pathA, pathA)
	w.Down = true
	ends(t, w, api.Reverted, pathA, pathA, pathA)
	ask(w, "retry", 2, "r2", 200)
	ask(w, "retry", 2, "r3", 300)
	w.Systems[pathB].CheckFails = false
	if s := turns(t, w, 40); s.DirectiveSerial != 100 {
		t.Errorf("it heard %d, which nobody could say", s.DirectiveSerial)
	}
	w.Down = false
	ends(t, w, api.OK, pathB, pathB, pathB)
	ask(w, "retry", 2, "r2", 200)
	ends(t, w, api.OK, pathB, pathB, pathB)
	if s := w.Acks[len(w.Acks)-1]; s.DirectiveSerial != 300 || !strings.Contains(s.Error, "directive 200") {
		t.Errorf("it says %d, %q", s.DirectiveSerial, s.Error)
	}
}

// TestDirectiveWithoutSerial: of a server that does not count each directive is
// obeyed once by its id, also by a host that has obeyed others by number.
func TestDirectiveWithoutSerial(t *testing.T) {
	w := fails(t)
	for _, c := range []struct {
		id     string
		serial int64
		obeyed bool
	}{{"r1", 0, true}, {"r1", 0, false}, {"r2", 500, true}, {"r3", 0, true}, {"r3", 0, false}, {"r2", 500, false}, {"r4", 501, true}} {
		runs := w.Started()
		ask(w, "retry", 2, c.id, c.serial)
		ends(t, w, api.Reverted, pathA, pathA, pathA)
		if got := w.Started() > runs; got != c.obeyed {
			t.Errorf("%s (%d): obeyed %v", c.id, c.serial, got)
		}
	}
}

// TestOrderAndEarlierAgents: an agent that knows no serial obeys by the id and
// writes a journal without one; the agent after it obeys nothing twice, and knows
// the order again as soon as it hears of what was obeyed.
func TestOrderAndEarlierAgents(t *testing.T) {
	w := fails(t)
	ask(w, "retry", 2, "r1", 100)
	j := ends(t, w, api.Reverted, pathA, pathA, pathA)
	if j.Seen[sim.Origin+" "+sim.Channel].Directive != 100 {
		t.Fatalf("seen is %+v", j.Seen)
	}
	// It obeyed r2.
	w.Journal = bytes.Replace(w.Journal, []byte(`,"directive_serial":100`), nil, 1)
	w.Journal = bytes.Replace(w.Journal, []byte(`"directive":"r1"`), []byte(`"directive":"r2"`), 1)
	var plain map[string]any
	if err := json.Unmarshal(w.Journal, &plain); err != nil || bytes.Contains(w.Journal, []byte(`"directive_serial":100`)) {
		t.Fatal(err, string(w.Journal))
	}
	runs := w.Started()
	ask(w, "retry", 2, "r2", 200)
	ends(t, w, api.Reverted, pathA, pathA, pathA)
	ask(w, "retry", 2, "r1", 100)
	ends(t, w, api.Reverted, pathA, pathA, pathA)
	if w.Started() != runs {
		t.Error("it obeyed twice")
	}
	if s := w.Acks[len(w.Acks)-1]; s.DirectiveSerial != 200 {
		t.Errorf("it says %d", s.DirectiveSerial)
	}
}

// TestOrderSurvives: killed or without power at every point of a retry, the host
// obeys it once, and an older one never.
func TestOrderSurvives(t *testing.T) {
	ready := fails(t)
	ready.Systems[pathB].CheckFails = false
	ask(ready, "retry", 2, "r2", 200)
	for at := 1; ; at++ {
		w := ready.Clone()
		w.CrashAt = w.Ops + at
		crashed := false
		j, err := w.Drive(w.Keys.Rules(), 2000, func() { crashed = true })
		if !crashed {
			break
		}
		if err != nil || j.State != api.OK && j.State != api.Reverted || len(w.Violations) > 0 {
			t.Fatalf("crash %d: %v, %+v, %q", at, err, j, w.Violations)
		}
		state, runs := j.State, w.Started()
		ask(w, "revert", 2, "r1", 100)
		if j, err = w.Drive(w.Keys.Rules(), 2000, nil); err != nil || j.State != state || w.Started() != runs {
			t.Fatalf("crash %d: %v, an old directive made %s of %s", at, err, j.State, state)
		}
	}
}

// TestRetryOfAnArmedHost: what failed there is its reboot, and that is tried at
// once.
func TestRetryOfAnArmedHost(t *testing.T) {
	w := armed(t, signing.Auto)
	w.WontReboot = true // which is tried again after ten minutes
	w.Wants.Reboot = &api.Grant{Seq: 2}
	rules := hooked(w)
	endsBy(t, w, rules, api.Armed, pathA)
	w.WontReboot = false
	ask(w, "retry", 2, "r1", 100)
	before := w.Clock
	endsBy(t, w, rules, api.OK, pathB)
	if w.Clock-before > 90_000 || w.Reboots != 1 {
		t.Errorf("%d reboots, after %d ms", w.Reboots, w.Clock-before)
	}
}
