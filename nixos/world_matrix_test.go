package nixos_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/desired"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// behaviours are all that a system may do to the host.
var behaviours = map[string]sim.System{
	"good": {}, "exit 1": {TestExit: 1}, "exit 2": {TestExit: 2}, "exit 4": {TestExit: 4}, "exit 100": {TestExit: 100},
	"stays out": {StaysOut: true}, "hangs": {Hangs: true}, "unit": {Units: []string{"web.service"}}, "late unit": {Units: []string{"web.service"}, UnitsAfter: 7 * time.Second},
	"check": {CheckFails: true}, "slow check": {ChecksAfter: 6 * time.Second}, "network": {CutsNetwork: true}, "agent": {AgentBroken: true}, "refused": {Refused: true},
	"boot entry": {BootExit: 1}, "boot full": {FillsBoot: true}, "kernel": {Reboot: []string{"kernel"}}, "falls back": {WontBoot: true},
	"switch check": {CanCheck: true}, "switch check fails": {CanCheck: true, CheckExit: 1}, "inhibited": {Inhibited: []string{"switch-inhibitors: dbus"}}, "wrong bytes": {WrongBytes: 1},
}

// TestEveryActionAndOutcome kills the agent, or cuts the power, in every action
// with every behaviour, hooks and a reboot included. TestEveryCrashPoint takes
// all points of some stories and knows their ends; here are a few points of
// all, each combination's own, and what must hold in any case.
func TestEveryActionAndOutcome(t *testing.T) {
	n, step := 0, 7
	if testing.Short() {
		step = 35
	}
	for _, action := range signing.Actions {
		for _, name := range slices.Sorted(maps.Keys(behaviours)) {
			for _, power := range []bool{false, true} {
				n++
				t.Run(fmt.Sprintf("%s/%s/power=%v", action, name, power), func(t *testing.T) {
					for at := 1 + n%step; at < 150; at += step { // no attempt that comes to its end has more
						if !crashedAt(t, behaviours[name], action, power, at) {
							break
						}
					}
				})
			}
		}
	}
}

func crashedAt(t *testing.T, b sim.System, action signing.Action, power bool, at int) (crashed bool) {
	t.Helper()
	w := world(t, b)
	w.Promote(2, pathB, action)
	permitReboot(w)
	rules := w.Keys.Rules()
	rules.Reboot = desired.RebootServer
	allHooks(&rules)
	w.CrashAt = w.Ops + at
	reboots := 0
	j, err := w.Drive(rules, 400, func() {
		if w.Reboots > reboots {
			reboots = w.Reboots
			return
		}
		crashed = true
		if power {
			w.PowerCycle()
		}
	})
	if len(w.Violations) > 0 {
		t.Fatalf("crash %d: %q %q", at, w.Violations, tail(w.Trace))
	}
	if err != nil { // what inhibits a switch does so for ever
		s := w.Statuses[len(w.Statuses)-1]
		live := action == signing.Switch || action == signing.Test
		if !live || len(b.Inhibited) == 0 && b.CheckExit == 0 || w.Current != pathA || w.Profile() != pathA || w.BootEntry != pathA {
			t.Fatalf("crash %d: %v, %+v %q", at, err, s, tail(w.Trace))
		}
		return crashed
	}
	if last := w.Acks[len(w.Acks)-1]; last.State != j.State || last.Current != w.Current || w.Drained {
		t.Fatalf("crash %d: it is %s on %s, told %s on %s, drained %v", at, j.State, w.Current, last.State, last.Current, w.Drained)
	}
	at1 := func(current, profile, boots string) bool {
		return w.Current == current && w.Profile() == profile && w.BootEntry == boots
	}
	good := false
	switch j.State {
	case api.OK:
		good = at1(pathB, pathB, pathB)
	case api.Armed:
		good = at1(pathA, pathB, pathB)
	case api.Testing:
		good = action == signing.Test && at1(pathB, pathA, pathA)
	case api.TestOver:
		good = action == signing.Test && at1(pathA, pathA, pathA)
	case api.DryRunDone:
		good = action == signing.DryActivate && at1(pathA, pathA, pathA)
	case api.Reverted:
		good = at1(pathA, pathA, pathA)
	}
	if !good || !w.Valid[w.Current] || !w.Valid[w.BootEntry] {
		t.Fatalf("crash %d: it ended %s (%s), current %s, profile %s, boots %s %q", at, j.State, j.Error, w.Current, w.Profile(), w.BootEntry, tail(w.Trace))
	}
	return crashed
}
