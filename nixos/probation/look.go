// Package probation is what looks at a host on probation come to, and pure. Units and
// checks that are not well are noted in the attempt, with the time since when; a new system
// fails where something stays bad for as long as it may take to come up.
package probation

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
)

// Rules are the host's own.
type Rules struct {
	Settle      time.Duration // what fails may take so long to come up
	IgnoreUnits []string      // patterns of the names of units that never count
}

// Look notes one look. bad are reasons to go back; with waits the system cannot pass yet.
func Look(r *Rules, a *journal.Attempt, now int64, ev effect.Observed) (bad []string, waits bool) {
	wrong := findings(r, a, ev)
	restless, loops := crashes(r, a, now, ev)
	bad = append(stillWrong(r, a, now, wrong), loops...)
	a.Answered = a.Answered || ev.Err == ""
	return bad, len(wrong) > 0 || restless
}

// StopClocks moves the times of a probation, of a way back, and the end of a test, by how long nobody
// could look: the machine slept. One that was stopped without knowing it, and an agent that
// was not there, show in two looks that are longer apart than longest; 0 is that this does not
// count.
func StopClocks(a *journal.Attempt, f effect.Facts, longest time.Duration) {
	away, gap := f.Slept-a.Slept, f.Now-a.LookedAt
	if longest > 0 && gap > longest.Milliseconds() {
		away = gap
	}
	first := a.LookedAt == 0 // of an agent that did not note it
	a.LookedAt = f.Now
	if first || away >= 1000 { // less is between two looks at two clocks
		a.Slept = f.Slept
	}
	if first || away < 1000 {
		return
	}
	for _, at := range []*int64{&a.ProbationAt, &a.AwayAt, &a.BackAt} {
		if *at != 0 {
			*at = min(*at+away, f.Now)
		}
	}
	for what, since := range a.Failing {
		a.Failing[what] = min(since+away, f.Now)
	}
	for unit, c := range a.Crashes {
		if c.At != 0 {
			c.First, c.At = min(c.First+away, f.Now), min(c.At+away, f.Now)
			a.Crashes[unit] = c
		}
	}
	if a.TestUntil != 0 {
		a.TestUntil += away
	}
}

// findings are what is wrong in one look, and how. What had failed before the
// switch is not.
func findings(r *Rules, a *journal.Attempt, ev effect.Observed) map[string]string {
	if ev.Err != "" {
		return map[string]string{"the look at the host": ev.Err}
	}
	wrong := make(map[string]string)
	a.NewFailed = nil
	for _, u := range ev.Units {
		if !u.Failed || !counts(r, a, u) {
			continue
		}
		a.NewFailed = append(a.NewFailed, u.Name)
		wrong["unit "+u.Name] = "failed"
		if slices.Contains(a.Baseline, u.Name) {
			wrong["unit "+u.Name] = "failed, as it did before this release changed it (see probation.ignore_units)"
		}
	}
	a.Checks = ev.Checks
	for _, c := range ev.Checks {
		if c.Mode == api.Enforce && !c.OK {
			wrong["check "+c.Name] = c.Detail
		}
	}
	return wrong
}

// counts tells whether a unit can speak against the new system. One that the
// release did not change does not where it had failed before, and where it only
// happens to fail: a timer's backup, say. But a boot starts every unit anew.
func counts(r *Rules, a *journal.Attempt, u effect.Unit) bool {
	ignored := slices.ContainsFunc(r.IgnoreUnits, func(pattern string) bool {
		match, err := path.Match(pattern, u.Name)
		return err == nil && match
	})
	switch {
	case ignored:
		return false
	case u.Changed:
		return true
	case u.Oneshot && (u.Triggered || !a.Rebooted):
		return false
	}
	return !slices.Contains(a.Baseline, u.Name)
}

// crashes are runs that end badly and are followed by another, of units that may
// look well at each look. A unit is a crash loop if it still crashes after as long
// as it may take to come up; until it was quiet for so long it is restless.
func crashes(r *Rules, a *journal.Attempt, now int64, ev effect.Observed) (restless bool, loops []string) {
	settle := r.Settle.Milliseconds()
	if ev.Err == "" && a.Crashes == nil {
		a.Crashes = make(map[string]journal.Crash)
	}
	for _, u := range ev.Units {
		c := a.Crashes[u.Name]
		switch {
		case u.Crash == "" || u.Crash == c.Last || !counts(r, a, u):
			continue
		case a.Answered: // of before the first look it says nothing
			c.First, c.At = cmp.Or(c.First, now), now
		}
		c.Last = u.Crash
		a.Crashes[u.Name] = c
		if c.At != 0 && now-c.First >= settle {
			a.NewFailed = append(a.NewFailed, u.Name)
			loops = append(loops, fmt.Sprintf("unit %s: it fails and is started again, for %s by now", u.Name, time.Duration(now-c.First)*time.Millisecond))
		}
	}
	a.NewFailed = journal.Set(a.NewFailed)
	for _, c := range a.Crashes {
		restless = restless || (c.At != 0 && now-c.At < settle)
	}
	return restless, loops
}

// stillWrong notes since when each thing is wrong, and lists what has been for
// as long as it may take to come up.
func stillWrong(r *Rules, a *journal.Attempt, now int64, wrong map[string]string) (bad []string) {
	failing := make(map[string]int64)
	for what, how := range wrong {
		since, ok := a.Failing[what]
		if !ok {
			since = now
		}
		failing[what] = since
		if now-since >= r.Settle.Milliseconds() {
			bad = append(bad, strings.TrimSuffix(what+": "+how, ": "))
		}
	}
	a.Failing = failing
	return bad
}
