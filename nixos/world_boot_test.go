package nixos_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/window"
	"narwharf/nixos/desired"
	"narwharf/nixos/effect"
	"narwharf/nixos/machine"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// armed is a host that needs a reboot for B, and has no permission yet.
func armed(t *testing.T, action signing.Action) *sim.World {
	t.Helper()
	w := world(t, sim.System{Reboot: []string{"kernel"}})
	w.Promote(2, pathB, action)
	ends(t, w, api.Armed, pathA, pathB, pathB)
	return w
}

func TestRebootWithPermission(t *testing.T) {
	for _, action := range []signing.Action{signing.Auto, signing.Reboot} {
		w := armed(t, action)
		if s := w.Acks[len(w.Acks)-1]; s.WaitingFor.Kind != api.WaitReboot || !strings.Contains(s.WaitingFor.Detail, "has not permitted") {
			t.Fatalf("waiting for %+v", s.WaitingFor)
		}
		w.Wants.Reboot = &api.Grant{Seq: 1, Lease: 900}
		ends(t, w, api.Armed, pathA, pathB, pathB)
		w.Wants.Reboot = &api.Grant{Seq: 2, Lease: 900}
		boot := w.Boot
		j := ends(t, w, api.OK, pathB, pathB, pathB)
		if w.Reboots != 1 || !j.Attempt.Rebooted || j.Attempt.BootID == "boot-"+string(rune('0'+boot)) {
			t.Errorf("%d reboots, %+v", w.Reboots, j.Attempt)
		}
		ends(t, w, api.OK, pathB, pathB, pathB)
		if w.Reboots != 1 {
			t.Errorf("%d reboots", w.Reboots)
		}
	}
}

func TestWhoMayReboot(t *testing.T) {
	permitted := func(w *sim.World) { w.Wants.Reboot = &api.Grant{Seq: 2, Lease: 900} }
	never := func(r *machine.Rules) { r.Reboot = desired.RebootNever }
	always := func(r *machine.Rules) { r.Reboot = desired.RebootAlways }
	for _, c := range []struct {
		name   string
		action signing.Action
		rules  func(*machine.Rules)
		do     func(*sim.World)
		kind   api.WaitKind // "" where it reboots
	}{
		{name: "never is never", action: signing.Reboot, rules: never, do: permitted, kind: api.WaitReboot},
		{name: "always", action: signing.Reboot, rules: always},
		{name: "boot leaves it to people", action: signing.Boot, rules: always, do: permitted, kind: api.WaitReboot},
		{name: "held", action: signing.Auto, rules: always, do: func(w *sim.World) { w.Wants.Hold = &api.Hold{By: "kim", Reason: "x"} }, kind: api.WaitHold},
		{name: "paused", action: signing.Auto, rules: always, do: func(w *sim.World) { w.Pause = &api.Hold{By: "kim", Reason: "x"} }, kind: api.WaitPaused},
		{name: "the server's reason", action: signing.Auto, do: func(w *sim.World) { w.Wants.WaitingFor = &api.Waiting{Kind: api.WaitSlot, Detail: "one at a time"} }, kind: api.WaitSlot},
		{name: "outside the windows", action: signing.Auto, do: permitted, rules: func(r *machine.Rules) { r.Windows = windows(t, "00:00-00:01") }, kind: api.WaitWindow},
		{name: "in a window", action: signing.Auto, do: permitted, rules: func(r *machine.Rules) { r.Windows = windows(t, "00:00-00:00") }},
		{name: "a person switched to it", action: signing.Auto, do: func(w *sim.World) { permitted(w); w.HumanSwitch(pathA, true) }, kind: "drifted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := armed(t, c.action)
			rules := w.Keys.Rules()
			if c.rules != nil {
				c.rules(&rules)
			}
			if c.do != nil {
				c.do(w)
			}
			j, err := w.Drive(rules, 1000, nil)
			if err != nil {
				t.Fatal(err)
			}
			checkTruth(t, w)
			switch {
			case c.kind == "":
				if j.State != api.OK || w.Reboots != 1 {
					t.Fatalf("%s, %d reboots, %+v", j.State, w.Reboots, j.WaitingFor)
				}
			case c.kind == "drifted":
				if j.State != api.Drifted || w.Reboots != 0 {
					t.Fatalf("%s, %d reboots", j.State, w.Reboots)
				}
			case j.State != api.Armed || w.Reboots != 0 || j.WaitingFor == nil || j.WaitingFor.Kind != c.kind:
				t.Fatalf("%s, %d reboots, %+v", j.State, w.Reboots, j.WaitingFor)
			}
		})
	}
}

// A host that needs nobody's word does not park a poll before it reboots, and one
// that does park one asks once before.
func TestArmedAsksAtOnce(t *testing.T) {
	for allow, reboots := range map[desired.RebootAllow]int{desired.RebootAlways: 1, desired.RebootServer: 0} {
		w := world(t, sim.System{Reboot: []string{"kernel"}})
		w.Promote(2, pathB, signing.Reboot)
		rules := w.Keys.Rules()
		rules.Reboot = allow
		before := w.Clock
		if _, err := w.Drive(rules, 1000, nil); err != nil {
			t.Fatal(err)
		}
		if took := w.Clock - before; w.Reboots != reboots || took > 45_000 {
			t.Errorf("%s: %d reboots, after %d ms", allow, w.Reboots, took)
		}
	}
}

func TestRebootThatDoesNotHappen(t *testing.T) {
	w := armed(t, signing.Auto)
	w.WontReboot = true
	w.Wants.Reboot = &api.Grant{Seq: 2}
	rules := hooked(w)
	j := endsBy(t, w, rules, api.Armed, pathA)
	if w.Reboots != 0 || !strings.Contains(j.WaitingFor.Detail, "still up") {
		t.Fatalf("waiting for %+v", j.WaitingFor)
	}
	w.WontReboot = false
	w.Clock += 600_000
	endsBy(t, w, rules, api.OK, pathB)
	if !slices.Equal(w.Hooks, []string{"pre_reboot", "post_switch", "pre_reboot", "post_switch"}) {
		t.Errorf("hooks %q", w.Hooks)
	}
}

func TestPreRebootHookFails(t *testing.T) {
	w := armed(t, signing.Auto)
	w.HookFails[effect.HookPreReboot] = 1
	w.Wants.Reboot = &api.Grant{Seq: 2}
	rules := hooked(w)
	j := endsBy(t, w, rules, api.Armed, pathA)
	if w.Reboots != 0 || !strings.Contains(j.WaitingFor.Detail, "hooks.pre_reboot") {
		t.Fatalf("waiting for %+v", j.WaitingFor)
	}
	w.Clock += 600_000
	endsBy(t, w, rules, api.OK, pathB)
}

// TestPersonSwitchesWhileDrained: what is armed by then is a person's.
func TestPersonSwitchesWhileDrained(t *testing.T) {
	w := armed(t, signing.Auto)
	w.Add(&sim.System{Path: pathC})
	w.Wants.Reboot = &api.Grant{Seq: 2}
	w.Fail = func(op string) error {
		if op == "hook pre_reboot" && w.Current != pathC {
			w.HumanSwitch(pathC, true)
		}
		return nil
	}
	j, err := w.Drive(hooked(w), 500, nil)
	if err != nil || w.Reboots != 0 || w.Drained || w.Statuses[len(w.Statuses)-1].State != api.Drifted {
		t.Fatal(err, w.Reboots, w.Drained, j)
	}
	checkTruth(t, w)
}

// TestRebootLeaseRunsOut: a permission of before is none.
func TestRebootLeaseRunsOut(t *testing.T) {
	w := armed(t, signing.Auto)
	rules := w.Keys.Rules()
	rules.Windows = windows(t, "00:00-00:01")
	w.Wants.Reboot = &api.Grant{Seq: 2, Lease: 60}
	if j, err := w.Drive(rules, 1000, nil); err != nil || j.WaitingFor.Kind != api.WaitWindow {
		t.Fatal(err, j)
	}
	w.Clock += 61_000
	w.Down = true
	if _, err := w.Drive(w.Keys.Rules(), 50, nil); err == nil || w.Reboots != 0 {
		t.Fatal(err, w.Reboots)
	}
	w.Down = false
	ends(t, w, api.OK, pathB, pathB, pathB)
}

// TestNoNewBootID: what looks like the new system without a new boot is not
// taken for one.
func TestNoNewBootID(t *testing.T) {
	w := armed(t, signing.Boot)
	w.Booted = pathB // a /run that somebody made up
	ends(t, w, api.Armed, pathA, pathB, pathB)
}

func TestTestDeadline(t *testing.T) {
	w := world(t, sim.System{})
	rules := w.Keys.Rules()
	rules.TestDeadline = 2 * time.Hour
	w.Promote(2, pathB, signing.Test)
	endsBy(t, w, rules, api.Testing, pathB)
	w.Clock += time.Hour.Milliseconds()
	endsBy(t, w, rules, api.Testing, pathB)
	w.Clock += time.Hour.Milliseconds()
	j := endsBy(t, w, rules, api.TestOver, pathA)
	if len(j.Denied) != 0 || w.BootEntry != pathA || !strings.Contains(w.Acks[len(w.Acks)-1].Error, "time was over") {
		t.Errorf("denied %v, told %q", j.Denied, w.Acks[len(w.Acks)-1].Error)
	}
	runs := w.Started()
	endsBy(t, w, rules, api.TestOver, pathA)
	if w.Started() != runs {
		t.Error("it was activated again")
	}
	w.Promote(3, pathB, signing.Switch)
	endsBy(t, w, rules, api.OK, pathB)
}

func TestTestDeadlineWhereGoingBackFails(t *testing.T) {
	w := world(t, sim.System{})
	w.Systems[pathA].BackExit = 2
	rules := w.Keys.Rules()
	rules.TestDeadline = time.Hour
	w.Promote(2, pathB, signing.Test)
	endsBy(t, w, rules, api.Testing, pathB)
	w.Clock += time.Hour.Milliseconds()
	endsBy(t, w, rules, api.Failed, pathA)
}

func TestJitter(t *testing.T) {
	w := world(t, sim.System{})
	w.Add(&sim.System{Path: pathC})
	rules := w.Keys.Rules()
	rules.Jitter = time.Hour
	w.Promote(2, pathB, signing.Auto)
	began := w.Clock
	realised := int64(0)
	w.Fail = func(op string) error {
		if op == "realise" && realised == 0 {
			realised = w.Clock
		}
		return nil
	}
	endsBy(t, w, rules, api.OK, pathB)
	if d := realised - began; d > time.Hour.Milliseconds()+60_000 || d < 1000 {
		t.Errorf("the download began after %d ms", d)
	}
	// A new release does not wait for the old one's time.
	w.Fail = nil
	w.Promote(3, pathC, signing.Auto)
	if _, err := w.Drive(rules, 12, nil); err == nil {
		t.Fatal("no jitter")
	}
	w.Promote(4, pathA, signing.Auto)
	endsBy(t, w, rules, api.OK, pathA)
	if w.Valid[pathC] {
		t.Error("the superseded release was fetched")
	}
}

// TestJitterOfSeconds: no poll that parks makes them more.
func TestJitterOfSeconds(t *testing.T) {
	w := world(t, sim.System{})
	rules := w.Keys.Rules()
	rules.Jitter = 4 * time.Second
	w.Promote(2, pathB, signing.Auto)
	prepared, realised := int64(0), int64(0)
	w.Fail = func(op string) error {
		switch {
		case op == "narinfos":
			prepared = w.Clock
		case op == "realise" && realised == 0:
			realised = w.Clock
		}
		return nil
	}
	endsBy(t, w, rules, api.OK, pathB)
	if d := realised - prepared; prepared == 0 || realised == 0 || d > rules.Jitter.Milliseconds()+500 {
		t.Errorf("the download began after %d ms", d)
	}
}

func windows(t *testing.T, text string) window.Schedule {
	t.Helper()
	w, err := window.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	s, err := window.NewSchedule([]window.Window{w})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
