package nixos_test

import (
	"fmt"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/desired"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/nixos/machine"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// stories are attempts that are crashed at every point.
var stories = []struct {
	name   string
	b      sim.System
	action signing.Action
	good   bool // without a crash it ends well, and so:
	end    api.State
	rules  func(*machine.Rules)
	wants  func(*sim.World) // of the server, with the release
	then   func(*sim.World) // when it has come to rest, and goes on
}{
	{name: "good", end: api.OK, action: signing.Auto, good: true},
	{name: "activation fails", end: api.Reverted, b: sim.System{TestExit: 2, Takes: time.Second}, action: signing.Auto},
	{name: "unit fails", end: api.Reverted, b: sim.System{Units: []string{"web.service"}, Takes: time.Second}, action: signing.Auto},
	{name: "network cut", end: api.Reverted, b: sim.System{CutsNetwork: true}, action: signing.Auto},
	{name: "boot entry fails", end: api.Reverted, b: sim.System{BootExit: 1}, action: signing.Auto},
	{name: "reboot needed", end: api.Armed, b: sim.System{Reboot: []string{"kernel"}}, action: signing.Auto, good: true},
	{name: "boot", end: api.Armed, action: signing.Boot, good: true},
	{name: "test", end: api.Testing, action: signing.Test, good: true},
	{name: "dry", end: api.DryRunDone, action: signing.DryActivate, good: true},
	{name: "slow", end: api.OK, b: sim.System{Takes: 30 * time.Second}, action: signing.Switch, good: true},
	{name: "check and hooks", end: api.OK, b: sim.System{CanCheck: true}, action: signing.Switch, good: true, rules: allHooks},
	{name: "hooks around a failure", end: api.Reverted, b: sim.System{CheckFails: true}, action: signing.Switch, rules: allHooks},
	{name: "hooks around a boot entry that fails", end: api.Reverted, b: sim.System{BootExit: 1}, action: signing.Switch, rules: allHooks},
	{name: "check fails", end: api.Armed, b: sim.System{CanCheck: true, CheckExit: 1}, action: signing.Auto, good: true, rules: allHooks},
	{name: "jitter", end: api.OK, action: signing.Auto, good: true, rules: func(r *machine.Rules) { r.Jitter = time.Minute }},
	{name: "wrong bytes", end: api.OK, b: sim.System{WrongBytes: 1}, action: signing.Auto, good: true},
	{name: "reboot, permitted", end: api.OK, b: sim.System{Reboot: []string{"kernel"}}, action: signing.Auto, good: true, rules: allHooks, wants: permitReboot},
	{name: "reboot, always", end: api.OK, action: signing.Reboot, good: true, rules: func(r *machine.Rules) { r.Reboot = desired.RebootAlways }},
	{name: "reboot into a failure", end: api.Reverted, b: sim.System{CheckFails: true}, action: signing.Reboot, rules: allHooks, wants: permitReboot},
	{name: "reboot that falls back", end: api.Reverted, b: sim.System{WontBoot: true}, action: signing.Reboot, rules: allHooks, wants: permitReboot},
	{name: "test with a deadline", end: api.TestOver, action: signing.Test, good: true, rules: func(r *machine.Rules) { allHooks(r); r.TestDeadline = time.Hour },
		then: func(w *sim.World) { w.Clock += 3_600_000 }},
	{name: "revert directive", end: api.Reverted, action: signing.Auto, rules: allHooks,
		then: func(w *sim.World) { w.Wants.Directive = &api.Directive{Type: "revert", Seq: 2, ID: "d1"} }},
}

func allHooks(r *machine.Rules) {
	r.Hooks = map[effect.HookName]bool{effect.HookPreSwitch: true, effect.HookPostSwitch: true, effect.HookPreReboot: true}
}

func permitReboot(w *sim.World) { w.Wants.Reboot = &api.Grant{Seq: 2, Lease: 900} }

// TestEveryCrashPoint kills the agent, or cuts the power, at every effect and
// every save of every story, and lets another agent go on.
func TestEveryCrashPoint(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 5
	}
	for _, s := range stories {
		for _, power := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/power=%v", s.name, power), func(t *testing.T) {
				points := 0
				for at := 1; ; at += step {
					w := world(t, s.b)
					w.Promote(2, pathB, s.action)
					rules := w.Keys.Rules()
					if s.rules != nil {
						s.rules(&rules)
					}
					if s.wants != nil {
						s.wants(w)
					}
					start := w.Ops
					w.CrashAt = start + at
					crashed := ""
					reboots := 0
					crash := func() {
						if w.Reboots > reboots { // its own doing
							reboots = w.Reboots
							return
						}
						crashed = w.Trace[len(w.Trace)-1]
						if power {
							w.PowerCycle()
						}
					}
					j, err := w.Drive(rules, 2000, crash)
					if err == nil && s.then != nil {
						s.then(w)
						j, err = w.Drive(rules, 2000, crash)
					}
					if crashed == "" {
						if err != nil || j.State != s.end {
							t.Errorf("without a crash it ended %s (%s), %v", j.State, j.Error, err)
						}
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
				if points < 20/step {
					t.Errorf("only %d crash points", points)
				}
			})
		}
	}
}

// wrongEnd says what is wrong with how a crashed story ended.
func wrongEnd(w *sim.World, j *journal.Journal, action signing.Action, good, power bool) string {
	is := func(current, profile, boots string) string {
		if w.Current != current || w.Profile() != profile || w.BootEntry != boots {
			return fmt.Sprintf("current %s, profile %s, boots %s", w.Current, w.Profile(), w.BootEntry)
		}
		return ""
	}
	if w.Drained {
		return "it is drained"
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
