package nixos_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/effect"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// TestCrashLoop: a unit that fails and is started again looks well at most looks. It is a
// crash loop if it does so for longer than it may take to come up.
func TestCrashLoop(t *testing.T) {
	for name, c := range map[string]struct {
		b       sim.System
		minimum time.Duration
		want    api.State
	}{
		"every 3 s":                        {sim.System{CrashEvery: 3 * time.Second}, 0, api.Reverted},
		"every 15 s":                       {sim.System{CrashEvery: 15 * time.Second}, time.Minute, api.Reverted},
		"three times, until its database":  {sim.System{CrashEvery: 3 * time.Second, CrashTimes: 3}, 0, api.OK},
		"once, late":                       {sim.System{CrashEvery: 8 * time.Second, CrashTimes: 1}, 0, api.OK},
		"twice, and a minute between them": {sim.System{CrashEvery: 50 * time.Second, CrashTimes: 2}, 2 * time.Minute, api.Reverted},
	} {
		t.Run(name, func(t *testing.T) {
			w := world(t, c.b)
			rules := w.Keys.Rules()
			rules.Minimum = max(rules.Minimum, c.minimum)
			w.Promote(2, pathB, signing.Switch)
			j, err := w.Drive(rules, 2000, nil)
			if err != nil {
				t.Fatal(err)
			}
			checkTruth(t, w)
			last := w.Acks[len(w.Acks)-1]
			if j.State != c.want || (c.want == api.Reverted) != slices.Contains(last.NewFailedUnits, "loop.service") || (c.want == api.Reverted) != strings.Contains(j.Error, "unit loop.service: it fails and is started again") {
				t.Errorf("%s: %s, new failed %q", j.State, j.Error, last.NewFailedUnits)
			}
		})
	}
}

// TestWhatCounts: which units that are not well speak against a new system, by when they
// were seen so first.
func TestWhatCounts(t *testing.T) {
	backup := effect.Unit{Name: "backup.service", Failed: true, Oneshot: true, Triggered: true}
	for name, c := range map[string]struct {
		before, probation []effect.Unit
		action            signing.Action
		ignore            []string
		want              api.State
	}{
		"a service":                                  {probation: []effect.Unit{{Name: "web.service", Failed: true}}, want: api.Reverted},
		"it had failed before":                       {before: []effect.Unit{{Name: "web.service", Failed: true}}, want: api.OK},
		"it had, and the release changed it":         {before: []effect.Unit{{Name: "web.service", Failed: true, Changed: true}}, want: api.Reverted},
		"it had crashed before":                      {before: []effect.Unit{{Name: "web.service", Crash: "1"}}, probation: []effect.Unit{{Name: "web.service", Failed: true}}, want: api.OK},
		"a oneshot happens to fail":                  {probation: []effect.Unit{{Name: "backup.service", Failed: true, Oneshot: true}}, want: api.OK},
		"a oneshot that the release changed":         {probation: []effect.Unit{{Name: "backup.service", Failed: true, Oneshot: true, Changed: true}}, want: api.Reverted},
		"a oneshot of a timer":                       {probation: []effect.Unit{backup}, want: api.OK},
		"a oneshot fails in the boot":                {probation: []effect.Unit{{Name: "load.service", Failed: true, Oneshot: true}}, action: signing.Boot, want: api.Reverted},
		"a timer's oneshot fails after the boot":     {probation: []effect.Unit{backup}, action: signing.Boot, want: api.OK},
		"ignored":                                    {probation: []effect.Unit{{Name: "web.service", Failed: true, Changed: true}}, ignore: []string{"db.service", "web.*"}, want: api.OK},
		"a crash loop that is ignored":               {probation: []effect.Unit{{Name: "web.service", Crash: "1"}}, ignore: []string{"web.service"}, want: api.OK},
		"another is ignored":                         {probation: []effect.Unit{{Name: "web.service", Failed: true}}, ignore: []string{"we.service"}, want: api.Reverted},
		"a crash of before that is not seen to grow": {probation: []effect.Unit{{Name: "web.service", Crash: "1"}}, want: api.OK},
	} {
		t.Run(name, func(t *testing.T) {
			w := world(t, sim.System{})
			rules := w.Keys.Rules()
			rules.Probation.IgnoreUnits = c.ignore
			if c.action == "" {
				c.action = signing.Switch
			}
			w.Promote(2, pathB, c.action)
			w.NotWell = c.before
			if c.action == signing.Boot {
				until(t, w, api.Armed)
				w.PowerCycle()
			}
			until(t, w, api.Probation)
			w.NotWell = append(slices.Clone(c.before), c.probation...)
			j, err := w.Drive(rules, 2000, nil)
			if err != nil {
				t.Fatal(err)
			}
			checkTruth(t, w)
			if j.State != c.want {
				t.Errorf("%s (%s), want %s", j.State, j.Error, c.want)
			}
		})
	}
}
