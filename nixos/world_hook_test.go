package nixos_test

import (
	"slices"
	"strings"
	"testing"

	"narwharf/hooks/api"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/nixos/machine"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// hooked are the tests' rules with all hooks.
func hooked(w *sim.World) machine.Rules {
	r := w.Keys.Rules()
	r.Hooks = map[effect.HookName]bool{effect.HookPreSwitch: true, effect.HookPostSwitch: true, effect.HookPreReboot: true}
	return r
}

// endsBy drives by other rules than the usual ones, and compares the end.
func endsBy(t *testing.T, w *sim.World, rules machine.Rules, state api.State, current string) *journal.Journal {
	t.Helper()
	j, err := w.Drive(rules, 2000, nil)
	if err != nil {
		t.Fatal(err, tail(w.Trace))
	}
	checkTruth(t, w)
	if j.State != state || w.Current != current || w.Acks[len(w.Acks)-1].State != state || w.Drained {
		t.Fatalf("ended %s (%s) on %s, told %s, drained %v", j.State, j.Error, w.Current, w.Acks[len(w.Acks)-1].State, w.Drained)
	}
	return j
}

func TestHooksComeInPairs(t *testing.T) {
	for _, c := range []struct {
		name    string
		b       sim.System
		action  signing.Action
		state   api.State
		current string
		hooks   []string
	}{
		{"good", sim.System{}, signing.Auto, api.OK, pathB, []string{"pre_switch", "post_switch"}},
		{"bad", sim.System{CheckFails: true}, signing.Auto, api.Reverted, pathA, []string{"pre_switch", "post_switch"}},
		{"boot entry fails", sim.System{BootExit: 1}, signing.Switch, api.Reverted, pathA, []string{"pre_switch", "post_switch"}},
		{"test", sim.System{}, signing.Test, api.Testing, pathB, []string{"pre_switch", "post_switch"}},
		{"boot", sim.System{}, signing.Boot, api.Armed, pathA, nil},
		{"dry", sim.System{}, signing.DryActivate, api.DryRunDone, pathA, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := world(t, c.b)
			w.Promote(2, pathB, c.action)
			endsBy(t, w, hooked(w), c.state, c.current)
			if !slices.Equal(w.Hooks, c.hooks) {
				t.Errorf("hooks %q, want %q", w.Hooks, c.hooks)
			}
		})
	}
}

// TestPreSwitchHookFails: nothing was changed, the host is undrained, and it
// is tried again.
func TestPreSwitchHookFails(t *testing.T) {
	w := world(t, sim.System{})
	w.HookFails[effect.HookPreSwitch] = 3
	w.Promote(2, pathB, signing.Auto)
	started := 0
	w.Fail = func(op string) error {
		if w.HookFails[effect.HookPreSwitch] > 0 {
			started = w.Started()
		}
		return nil
	}
	endsBy(t, w, hooked(w), api.OK, pathB)
	said := slices.ContainsFunc(w.Acks, func(s *api.Status) bool {
		return s.State == api.WaitingState && strings.Contains(s.WaitingFor.Detail, "hooks.pre_switch: exit status 1")
	})
	if !said || started != 0 || len(w.Hooks) != 8 {
		t.Errorf("said %v, %d runs before, hooks %q", said, started, w.Hooks)
	}
}

// TestPostSwitchHookFails: a host should not stay drained for a hiccup; the
// outcome stays in any case, and it is told.
func TestPostSwitchHookFails(t *testing.T) {
	w := world(t, sim.System{})
	w.HookFails[effect.HookPostSwitch] = 3
	w.Promote(2, pathB, signing.Auto)
	endsBy(t, w, hooked(w), api.OK, pathB)

	w = world(t, sim.System{})
	w.HookFails[effect.HookPostSwitch] = 4
	w.Promote(2, pathB, signing.Auto)
	j, err := w.Drive(hooked(w), 2000, nil)
	if err != nil || j.State != api.OK {
		t.Fatal(err, j)
	}
	checkTruth(t, w)
	if last := w.Acks[len(w.Acks)-1]; last.State != api.OK || !strings.Contains(last.Error, "hooks.post_switch") {
		t.Errorf("told %+v", last)
	}
}

// TestHookOutlivesTheLease: what was granted is not granted any more when the
// host is drained at last.
func TestHookOutlivesTheLease(t *testing.T) {
	w := world(t, sim.System{})
	w.Promote(2, pathB, signing.Auto)
	w.Wants.Grant.Lease = 60
	slow := true
	w.Fail = func(op string) error {
		if op == "hook pre_switch" && slow {
			w.Clock += 61_000
			slow = false
		}
		return nil
	}
	endsBy(t, w, hooked(w), api.OK, pathB)
	if !slices.Equal(w.Hooks, []string{"pre_switch", "post_switch", "pre_switch", "post_switch"}) {
		t.Errorf("hooks %q", w.Hooks)
	}
}

// TestSwitchCheck is `switch-to-configuration check` before a switch.
func TestSwitchCheck(t *testing.T) {
	actions := func(w *sim.World) (ran []string) {
		for _, op := range w.Trace {
			if a, ok := strings.CutPrefix(op, "start "); ok && !strings.HasSuffix(a, " done") {
				ran = append(ran, a)
			}
		}
		return ran
	}
	t.Run("passes", func(t *testing.T) {
		w := world(t, sim.System{CanCheck: true})
		w.Trace = nil
		w.Promote(2, pathB, signing.Switch)
		ends(t, w, api.OK, pathB, pathB, pathB)
		if got := actions(w); !slices.Equal(got, []string{"check", "test", "boot"}) {
			t.Errorf("ran %q", got)
		}
	})
	t.Run("is not there", func(t *testing.T) {
		w := world(t, sim.System{CheckExit: 1})
		w.Trace = nil
		w.Promote(2, pathB, signing.Switch)
		ends(t, w, api.OK, pathB, pathB, pathB)
		if got := actions(w); !slices.Equal(got, []string{"test", "boot"}) {
			t.Errorf("ran %q", got)
		}
	})
	t.Run("fails, auto", func(t *testing.T) {
		w := world(t, sim.System{CanCheck: true, CheckExit: 1})
		w.Trace = nil
		w.Promote(2, pathB, signing.Auto)
		ends(t, w, api.Armed, pathA, pathB, pathB)
		if got := actions(w); !slices.Equal(got, []string{"check", "boot"}) {
			t.Errorf("ran %q", got)
		}
		if s := w.Acks[len(w.Acks)-1]; !slices.Equal(s.NeedRebootFor, []string{"switch-to-configuration check"}) {
			t.Errorf("for %q", s.NeedRebootFor)
		}
	})
	t.Run("fails, switch", func(t *testing.T) {
		w := world(t, sim.System{CanCheck: true, CheckExit: 1})
		w.Trace = nil
		w.Promote(2, pathB, signing.Switch)
		turns(t, w, 100)
		said := slices.ContainsFunc(w.Acks, func(s *api.Status) bool {
			return s.State == api.WaitingState && strings.Contains(s.WaitingFor.Detail, "switch-to-configuration check exited with 1 (not like this)")
		})
		if got := actions(w); !said || slices.Contains(got, "test") || len(got) < 2 {
			t.Fatalf("said %v, ran %q", said, got)
		}
		w.Systems[pathB].CheckExit = 0
		ends(t, w, api.OK, pathB, pathB, pathB)
	})
}
