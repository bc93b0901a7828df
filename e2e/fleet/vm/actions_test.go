package vm_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/e2e/fleet"
	"narwharf/e2e/fleet/vm"
)

// TestVMActions takes what an action promises to the firmware and back: what a boot entry names is
// what boots, and only a new boot counts as one. From the test on the root is tmpfs.
func TestVMActions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.story(t, "boot: armed; a power cut on the way down; probation, ok", func(s *fleet.Story, w *world) {
		before, boots := w.h.State(), w.h.Boots()
		a := w.system("a")
		seq := w.promote(0, a, "--action", "boot")
		if r := w.is(seq, "armed", w.now, a); len(r.Status.NeedRebootFor) > 0 {
			s.Errorf("the kernel is the same: %+v", r)
		}
		w.h.Hold("end") // of the running system's unit, which the shutdown waits for
		mark := w.h.Mark()
		w.h.AskFor("reboot")
		w.h.AwaitConsole(mark, "fleet: held end", vm.BootTimeout)
		w.h.PowerCut()
		w.h.Boot()
		w.is(seq, "ok", a, a)
		if st := w.h.State(); st.BootID == before.BootID || st.Booted != a || w.h.Boots() != boots+1 {
			s.Errorf("%d boots: %+v", w.h.Boots()-boots, st)
		}
		w.now = a
	})
	w.story(t, "auto with another kernel: armed; a reboot; probation, and the kernel runs", func(s *fleet.Story, w *world) {
		before := w.h.State()
		w.kernel = "6.2"
		b := w.system("b")
		begin := time.Now()
		seq := w.promote(0, b)
		s.Took("promote to armed", time.Since(begin))
		if r := w.is(seq, "armed", w.now, b); !r.Status.NeedReboot || !slices.Contains(r.Status.NeedRebootFor, "kernel") {
			s.Errorf("%+v", r)
		}
		w.h.Hold("probation")
		mark := w.h.Mark()
		begin = time.Now()
		w.h.Reboot()
		w.h.AwaitConsole(mark, "fleet: held probation", vm.BootTimeout)
		if r := w.becomes(seq, "probation"); r.Converged {
			s.Errorf("it is not done yet: %+v", r)
		}
		w.h.Release("probation")
		w.becomes(seq, "ok")
		s.Took("reboot to confirmed", time.Since(begin))
		w.is(seq, "ok", b, b)
		if st := w.h.State(); st.BootID == before.BootID || st.Booted != b {
			s.Errorf("%+v", st)
		}
		if v := w.h.Must("cat", "/run/initrd-version"); v != "6.2" {
			s.Errorf("the initrd of kernel %s runs", v)
		}
		w.now = b
	})
	w.story(t, "a full EFI system partition: back, and the old entry is whole", func(s *fleet.Story, w *world) {
		const sums = "sha256sum /boot/loader/loader.conf /boot/loader/entries/* /boot/EFI/nixos/*"
		before := w.h.Sh(`free=$(df --output=avail -B1 /boot | tail -n 1); head -c $((free - 8000000)) /dev/zero > /boot/filler; sync -f /boot; ` + sums)
		seq := w.promote(3, w.system("full", kernel("6.3")))
		if r := w.is(seq, "reverted", w.now, w.now); !strings.Contains(r.Status.Error, "boot") {
			s.Errorf("it does not say why: %s", r.Status.Error)
		}
		if after := w.h.Sh(sums); after != before {
			s.Errorf("/boot was\n%s\nand is\n%s", before, after)
		}
		w.h.Sh("rm /boot/filler; sync -f /boot")
	})
	w.story(t, "test, then a reboot that forgets the root: over, and the same host as before", func(s *fleet.Story, w *world) {
		const known = "cat /nix/var/narwharf/instance /nix/var/narwharf/token"
		w.h.Forget(true)
		e := w.system("tried")
		seq := w.promote(0, e, "--action", "test")
		w.is(seq, "testing", e, w.now)
		was, id := w.h.Sh(known), w.h.ReadFile("/etc/machine-id")
		begin := time.Now()
		w.h.Reboot()
		w.is(seq, "test_over", w.now, w.now)
		s.Took("reboot to told", time.Since(begin))
		if root := w.h.Root(); root != "tmpfs" || w.h.Sh(known) != was || w.h.ReadFile("/etc/machine-id") == id {
			s.Errorf("the root is %s, and of the host is left\n%s", root, w.h.Sh(known))
		}
		// A token that would be gone with the next boot is not asked for.
		w.h.WriteFile("/nix/other/join", "nwt_never_seen\n", 0o600)
		w.h.WriteFile("/nix/other/agent.toml", "state_dir = \"/nix/other\"\ntoken_file = \"/var/lib/narwharf/token\"\n"+
			strings.Replace(w.config, "/var/lib/narwharf/join-token", "/nix/other/join", 1), 0o600)
		if out := w.h.Exec("narwharf", "agent", "once", "--dry-run", "--config", "/nix/other/agent.toml"); out.Code == 0 || !strings.Contains(out.Stderr, "lies in memory") {
			s.Errorf("%v", out)
		}
	})
	w.story(t, "tmpfs root: reboot, of a system that does not boot: the boot loader goes back, the agent says so", func(s *fleet.Story, w *world) {
		w.config = strings.Replace(w.config, `allow = "never"`, `allow = "server"`, 1)
		w.CI().WriteFile("/root/policy.json", `{"reboot_slots": 1}`, 0o644)
		w.CI().Must("narwharf", "channel", "policy", "web", "--file", "/root/policy.json")
		allows := w.system("allows") // from the file of the system that runs
		w.is(w.promote(0, allows), "ok", allows, allows)
		w.now = allows
		w.h.WriteFile("/var/lib/fleet/tries", "2\n", 0o644)
		before, boots := w.h.State(), w.h.Boots()
		bad := w.system("bad", func(s *fleet.System) { s.KernelParams = "loglevel=4 init=/nowhere" })
		begin := time.Now()
		seq := w.send(bad, "--action", "reboot")
		w.h.AwaitBoot(boots + 3) // two tries that panic
		if r := w.reported(); r.Status.State == "armed" && (r.Slot == nil || r.Slot.Seq != seq) {
			s.Errorf("it reboots without a slot: %+v", r)
		}
		w.becomes(seq, "reverted")
		s.Took("promote to reverted", time.Since(begin))
		w.is(seq, "reverted", w.now, w.now)
		if st := w.h.State(); st.BootID == before.BootID || st.Booted != w.now {
			s.Errorf("%+v", st)
		}
		if n := strings.Count(w.h.Console(), "Kernel panic"); n != 2 {
			s.Errorf("%d kernel panics", n)
		}
		if r := w.reported(); r.Slot != nil {
			s.Errorf("the slot is not given back: %+v", r)
		}
		if left := w.h.Sh("grep -l nowhere /boot/loader/entries/* || true"); left != "" {
			s.Errorf("it still has an entry: %s", left)
		}
	})
	w.story(t, "tmpfs root: reboot: by itself, into the next one, whose tries are not counted any more", func(s *fleet.Story, w *world) {
		before, boots := w.h.State(), w.h.Boots()
		d := w.system("d")
		begin := time.Now()
		seq := w.promote(0, d, "--action", "reboot")
		s.Took("promote to confirmed", time.Since(begin))
		w.is(seq, "ok", d, d)
		if st := w.h.State(); st.BootID == before.BootID || st.Booted != d || w.h.Boots() != boots+1 {
			s.Errorf("%d boots: %+v", w.h.Boots()-boots, st)
		}
		if left := w.h.Sh("cd /boot/loader/entries; ls | grep + || true"); left != "" {
			s.Errorf("tries are counted: %s", left)
		}
		if root := w.h.Root(); root != "tmpfs" {
			s.Errorf("the root is %s", root)
		}
		w.now = d
	})
}
