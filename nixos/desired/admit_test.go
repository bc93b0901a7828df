package desired

import (
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/signing"
)

// TestAdmit: what holds a staged system back and an armed host up. The reasons
// come one after the other: each case takes away the one before it.
func TestAdmit(t *testing.T) {
	r := &Rules{Agent: "1.0", Reboot: RebootServer}
	f := effect.Facts{BootID: "b", Now: 100_000, Wall: time.Unix(1000, 0), Pause: &api.Hold{By: "kim", Reason: "disk"}}
	j := &journal.Journal{DesiredBoot: "b", DesiredAt: 0, Attempt: &journal.Attempt{
		Seq: 7, Action: signing.Auto, BootID: "b", Expire: 999, Staging: journal.Staging{RetryAt: 200_000}, Revert: journal.Revert{Reason: "the hook failed"},
	}}
	step := func(what string, kind, reboot api.WaitKind, anew bool) {
		t.Helper()
		for i, w := range []*Wait{Admit(r, j, f), AdmitReboot(r, j, f)} {
			want := []api.WaitKind{kind, reboot}[i]
			switch {
			case w == nil && want != "" || w != nil && (w.Kind != want || w.Detail == ""):
				t.Errorf("%s: %+v, want %q", what, w, want)
			case w != nil && w.Anew && !anew:
				t.Errorf("%s: the server is asked anew", what)
			}
		}
	}
	step("over", api.WaitExpired, api.WaitExpired, false)
	j.Attempt.Expire = 0
	step("paused", api.WaitPaused, api.WaitPaused, false)
	f.Pause = nil
	step("no answer yet", api.WaitOffline, api.WaitReboot, false)
	j.Desired = &api.Desired{Hold: &api.Hold{By: "kim", Reason: "disk"}, MinAgent: "2.0", WaitingFor: &api.Waiting{Kind: api.WaitSlot, Detail: "2 before it"}}
	step("held", api.WaitHold, api.WaitHold, false)
	j.Desired.Hold = nil
	step("an old agent", api.WaitInhibited, api.WaitInhibited, false)
	j.Desired.MinAgent = "1.0"
	step("not granted, and too early", api.WaitSlot, api.WaitReboot, false)
	j.Desired.Grant, j.Desired.Reboot = &api.Grant{Seq: 7, Lease: 10}, &api.Grant{Seq: 7, Lease: 10}
	step("its lease is over, and too early", api.WaitWave, api.WaitReboot, true)
	if w := Admit(r, j, f); !w.Anew {
		t.Errorf("the grant's lease is over: %+v", w)
	}
	j.Desired.Grant.Lease = 1000
	step("too early", api.WaitInhibited, api.WaitReboot, false)
	f.BootID = "c"
	step("a boot ends leases", api.WaitWave, api.WaitReboot, true)
	if w := AdmitReboot(r, j, f); !w.Anew || !w.Asks || !strings.HasPrefix(w.Detail, "the boot entry is set; ") {
		t.Errorf("the permission's lease is over: %+v", w)
	}
	j.DesiredBoot, j.Desired.Reboot = "c", nil
	step("granted, but no reboot", "", api.WaitSlot, false)
	j.Desired.Reboot = &api.Grant{Seq: 7}
	step("both", "", "", false)
	j.Desired.Reboot, r.Reboot = nil, RebootAlways
	step("always", "", "", false)
	r.Reboot = RebootNever
	step("never", "", api.WaitReboot, false)
	j.Attempt.Action, r.Reboot = signing.Boot, RebootAlways
	step("boot is for people", "", api.WaitReboot, false)
}
