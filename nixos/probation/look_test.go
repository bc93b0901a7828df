package probation

import (
	"slices"
	"testing"
	"time"

	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
)

// TestStopClocks: which time between two looks does not count.
func TestStopClocks(t *testing.T) {
	for name, c := range map[string]struct {
		looked, slept int64 // by the journal
		now           effect.Facts
		longest       time.Duration
		moved         int64
	}{
		"the next look":                         {looked: 100_000, now: effect.Facts{Now: 101_000}, longest: time.Minute},
		"two clocks are not read at once":       {looked: 100_000, now: effect.Facts{Now: 101_000, Slept: 40}, longest: time.Minute},
		"asleep":                                {looked: 100_000, slept: 5000, now: effect.Facts{Now: 131_000, Slept: 35_000}, longest: time.Minute, moved: 30_000},
		"a long look":                           {looked: 100_000, now: effect.Facts{Now: 150_000}, longest: time.Minute},
		"stopped":                               {looked: 100_000, now: effect.Facts{Now: 400_000}, longest: time.Minute, moved: 300_000},
		"a test is stopped":                     {looked: 100_000, now: effect.Facts{Now: 400_000}},
		"an agent that did not note it":         {now: effect.Facts{Now: 400_000, Slept: 300_000}, longest: time.Minute},
		"no time is later than now":             {looked: 100_000, now: effect.Facts{Now: 101_000, Slept: 900_000}, longest: time.Minute, moved: 900_000},
		"it slept before the probation, though": {looked: 100_000, slept: 300_000, now: effect.Facts{Now: 101_000, Slept: 300_000}, longest: time.Minute},
	} {
		a := new(journal.Attempt)
		a.LookedAt, a.Slept, a.ProbationAt, a.TestUntil = c.looked, c.slept, 90_000, 500_000
		a.BackAt = 91_000
		a.Failing = map[string]int64{"unit x": 95_000}
		a.Crashes = map[string]journal.Crash{"y": {First: 92_000, At: 93_000}, "before": {Last: "1"}}
		StopClocks(a, c.now, c.longest)
		at := func(was int64) int64 { return min(was+c.moved, max(c.now.Now, was)) }
		if a.ProbationAt != at(90_000) || a.Failing["unit x"] != at(95_000) || a.Crashes["y"] != (journal.Crash{First: at(92_000), At: at(93_000)}) ||
			a.BackAt != at(91_000) || a.Crashes["before"] != (journal.Crash{Last: "1"}) || a.AwayAt != 0 || a.TestUntil != 500_000+c.moved || a.LookedAt != c.now.Now {
			t.Errorf("%s: %+v", name, a.Probation)
		}
	}
}

// TestLook: a look that could not be taken is no base for what comes after it, and is itself
// wrong; what is bad for as long as it may take to come up is a reason to go back.
func TestLook(t *testing.T) {
	r, a := &Rules{Settle: 10 * time.Second}, new(journal.Attempt)
	loop := func(crash string) effect.Observed {
		return effect.Observed{Units: []effect.Unit{{Name: "loop.service", Crash: crash}}}
	}
	for i, step := range []struct {
		now   int64
		ev    effect.Observed
		bad   int
		waits bool
	}{
		{1000, effect.Observed{Err: "systemd does not answer"}, 0, true},
		{2000, loop("1"), 0, false}, // of before the first look
		{3000, loop("2"), 0, true},
		{12_000, loop("2"), 0, true},
		{13_000, loop("2"), 0, false}, // quiet for long enough
		{20_000, loop("3"), 1, true},
		{21_000, effect.Observed{Err: "systemd does not answer"}, 0, true},
		{31_000, effect.Observed{Err: "systemd does not answer"}, 1, true},
	} {
		bad, waits := Look(r, a, step.now, step.ev)
		if len(bad) != step.bad || waits != step.waits {
			t.Errorf("step %d: %q, %t", i, bad, waits)
		}
	}
	if !slices.Equal(a.NewFailed, []string{"loop.service"}) {
		t.Errorf("new failed: %q", a.NewFailed)
	}
}
