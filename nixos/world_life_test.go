package nixos_test

import (
	"errors"
	"slices"
	"time"

	"pgregory.net/rapid"

	"narwharf/hooks/api"
	"narwharf/nixos/desired"
	"narwharf/nixos/effect"
	"narwharf/nixos/machine"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// life is a host's: releases, crashes, power cuts, people, a server that comes
// and goes, disks that fail. Whatever happens, the world's own checks hold, and
// when it is quiet again the host is in a state that its facts bear out.
func life(rt *rapid.T) {
	w := followsA().Clone()
	paths := []string{pathA}
	for _, name := range []string{"b", "c", "d"} {
		s := aSystem(rt, name)
		w.Add(&s)
		paths = append(paths, s.Path)
	}
	rules := w.Keys.Rules()
	if rapid.Bool().Draw(rt, "hooks") {
		allHooks(&rules)
		for _, h := range []effect.HookName{effect.HookPreSwitch, effect.HookPostSwitch, effect.HookPreReboot} {
			w.HookFails[h] = rapid.IntRange(0, 2).Draw(rt, "failures of "+string(h))
		}
	}
	rules.Reboot = rapid.SampledFrom([]desired.RebootAllow{desired.RebootServer, desired.RebootAlways, desired.RebootNever}).Draw(rt, "reboot.allow")
	rules.TestDeadline = time.Duration(rapid.IntRange(0, 2).Draw(rt, "hours of a test")) * time.Hour
	rules.Jitter = time.Duration(rapid.IntRange(0, 1).Draw(rt, "jitter")) * time.Minute
	seq := int64(1)
	for range rapid.IntRange(1, 6).Draw(rt, "events") {
		switch rapid.SampledFrom([]string{"release", "release", "release", "power", "person", "person sets profile", "retry", "revert", "permit reboot", "hours", "pause", "stale server"}).Draw(rt, "event") {
		case "release":
			seq += rapid.Int64Range(1, 3).Draw(rt, "step")
			w.Promote(seq, rapid.SampledFrom(paths).Draw(rt, "path"), rapid.SampledFrom(signing.Actions).Draw(rt, "action"))
		case "power":
			w.PowerCycle()
		case "person":
			w.HumanSwitch(rapid.SampledFrom(paths).Draw(rt, "path"), false)
		case "person sets profile":
			w.HumanSwitch(rapid.SampledFrom(paths).Draw(rt, "path"), true)
		case "retry":
			w.Wants.Directive = &api.Directive{Type: "retry", Seq: w.Wants.Seq, ID: rapid.StringMatching("[a-z]{6}").Draw(rt, "id")}
		case "revert":
			w.Wants.Directive = &api.Directive{Type: "revert", Seq: w.Wants.Seq, ID: rapid.StringMatching("[a-z]{6}").Draw(rt, "id")}
		case "permit reboot":
			w.Wants.Reboot = &api.Grant{Seq: w.Wants.Seq, Lease: 900}
		case "hours":
			w.Clock += rapid.Int64Range(1, 10_000_000).Draw(rt, "ms")
		case "pause":
			w.Pause = &api.Hold{Reason: "x", By: "kim"}
		case "stale server":
			old := *w.Wants
			w.Promote(1, pathA, signing.Auto)
			live(rt, w, rules)
			w.Wants = &old
		}
		live(rt, w, rules)
		w.Pause = nil
	}
	w.WontReboot = false
	w.Fail, w.CrashAt, w.Down = nil, 0, false
	for _, s := range w.Systems {
		s.CutsNetwork = false // a person may have put one there that nobody takes away
	}
	j, err := w.Drive(rules, 3000, nil)
	if err != nil && !(errors.Is(err, sim.ErrTurns) && len(w.Systems[pathA].Inhibited) > 0) {
		rt.Fatal(err, tail(w.Trace))
	}
	if len(w.Violations) > 0 {
		rt.Fatal(w.Violations, tail(w.Trace))
	}
	if w.Drained {
		rt.Fatalf("it is %s (%s), and drained", j.State, j.Error)
	}
	last := w.Acks[len(w.Acks)-1]
	if last.State != j.State || last.Current != w.Current {
		rt.Fatalf("the server was told %s on %s; it is %s on %s", last.State, last.Current, j.State, w.Current)
	}
	if !slices.Contains([]api.State{api.OK, api.Armed, api.Testing, api.TestOver, api.DryRunDone, api.Reverted, api.Failed, api.Drifted, api.Rejected}, j.State) {
		rt.Fatalf("it ended %s", j.State)
	}
	if !w.Valid[w.Current] || !w.Valid[w.BootEntry] {
		rt.Fatalf("the garbage collector took what runs or boots")
	}
}

// live lets agents run for a while, with crashes and faults.
func live(rt *rapid.T, w *sim.World, rules machine.Rules) {
	power := rapid.Bool().Draw(rt, "crashes are power cuts")
	w.CrashAt = w.Ops + rapid.IntRange(1, 200).Draw(rt, "crash at")
	if fault := rapid.SampledFrom([]string{"", "", "", "save", "realise", "root", "failed units", "set profile", "sync", "run state", "desired", "start test", "start boot", "busy", "manifest", "path", "verify", "start check"}).Draw(rt, "fault"); fault != "" {
		times := rapid.IntRange(1, 5).Draw(rt, "faults")
		w.Fail = func(op string) error {
			if op == fault && times > 0 {
				times--
				return errors.New("injected: " + fault)
			}
			return nil
		}
	}
	w.Down = rapid.IntRange(0, 4).Draw(rt, "server down") == 0
	crashes := 0
	_, err := w.Drive(rules, rapid.IntRange(10, 400).Draw(rt, "turns"), func() {
		if crashes++; crashes < 3 {
			w.CrashAt = w.Ops + 1 + (crashes*37)%90
		}
		if power {
			w.PowerCycle()
		}
	})
	if err != nil && !errors.Is(err, sim.ErrTurns) {
		rt.Fatal(err)
	}
	w.Fail, w.CrashAt, w.Down = nil, 0, false
}
