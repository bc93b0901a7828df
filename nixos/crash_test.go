package nixos_test

import (
	"fmt"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// stories are attempts that are crashed at every point.
var stories = []struct {
	name   string
	b      sim.System
	action signing.Action
	good   bool // without a crash it ends well
}{
	{"good", sim.System{}, signing.Auto, true},
	{"activation fails", sim.System{TestExit: 2, Takes: time.Second}, signing.Auto, false},
	{"unit fails", sim.System{Units: []string{"web.service"}, Takes: time.Second}, signing.Auto, false},
	{"network cut", sim.System{CutsNetwork: true}, signing.Auto, false},
	{"boot entry fails", sim.System{BootExit: 1}, signing.Auto, false},
	{"reboot needed", sim.System{Reboot: []string{"kernel"}}, signing.Auto, true},
	{"boot", sim.System{}, signing.Boot, true},
	{"test", sim.System{}, signing.Test, true},
	{"dry", sim.System{}, signing.DryActivate, true},
	{"slow", sim.System{Takes: 30 * time.Second}, signing.Switch, true},
}

// TestEveryCrashPoint kills the agent, or cuts the power, at every effect and
// every save of every story, and lets another agent go on.
func TestEveryCrashPoint(t *testing.T) {
	for _, s := range stories {
		for _, power := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/power=%v", s.name, power), func(t *testing.T) {
				points := 0
				for at := 1; ; at++ {
					w := world(t, s.b)
					w.Promote(2, pathB, s.action)
					start := w.Ops
					w.CrashAt = start + at
					crashed := ""
					j, err := w.Drive(w.Keys.Rules(), 2000, func() {
						crashed = w.Trace[len(w.Trace)-1]
						if power {
							w.PowerCycle()
						}
					})
					if crashed == "" {
						break
					}
					points++
					where := fmt.Sprintf("crash %d at %q", at, crashed)
					if err != nil {
						t.Fatalf("%s: %v %q", where, err, tail(w.Trace))
					}
					if len(w.Violations) > 0 {
						t.Fatalf("%s: %q %q", where, w.Violations, tail(w.Trace))
					}
					if why := wrongEnd(w, j, s.action, s.good, power); why != "" {
						t.Fatalf("%s: ended %s (%s): %s", where, j.State, j.Error, why)
					}
				}
				if points < 20 {
					t.Errorf("only %d crash points", points)
				}
			})
		}
	}
}

// wrongEnd says what is wrong with how a crashed story ended.
func wrongEnd(w *sim.World, j *nixos.Journal, action signing.Action, good, power bool) string {
	is := func(current, profile, boots string) string {
		if w.Current != current || w.Profile() != profile || w.BootEntry != boots {
			return fmt.Sprintf("current %s, profile %s, boots %s", w.Current, w.Profile(), w.BootEntry)
		}
		return ""
	}
	if last := w.Acks[len(w.Acks)-1]; last.State != j.State {
		return fmt.Sprintf("the server was told %s", last.State)
	}
	if !power {
		if good && (j.State == api.Reverted || j.State == api.Failed) {
			return "a killed agent is no reason to revert"
		}
		if !good && j.State != api.Reverted {
			return "it should be reverted"
		}
	}
	switch j.State {
	case api.OK:
		if !good {
			return "it should not end well"
		}
		return is(pathB, pathB, pathB)
	case api.Reverted:
		return is(pathA, pathA, pathA)
	case api.Armed:
		return is(pathA, pathB, pathB)
	case api.Testing:
		return is(pathB, pathA, pathA)
	case api.TestOver, api.DryRunDone:
		return is(pathA, pathA, pathA)
	}
	return "that is no end of this story"
}
