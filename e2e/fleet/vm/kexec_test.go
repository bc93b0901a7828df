package vm_test

import (
	"strings"
	"testing"
	"time"

	"narwharf/e2e/fleet"
)

// TestVMKexec: a host with reboot.kexec goes from one kernel to the next without its firmware, by Debian's kexec-tools. What
// comes up is what the boot loader would have started, and is judged as after any other boot. What does not come up is the boot
// loader's again, and where kexec is not possible it is a reboot.
func TestVMKexec(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(toml string) string {
		return strings.Replace(toml, `allow = "never"`, "allow = \"server\"\nkexec = true", 1)
	})
	w.CI().WriteFile("/root/policy.json", `{"reboot_slots": 1}`, 0o644)
	w.CI().Must("narwharf", "channel", "policy", "web", "--file", "/root/policy.json")

	w.story(t, "kexec: another kernel, past the firmware, in a slot", func(s *fleet.Story, w *world) {
		before, boots, firmware := w.h.State(), w.h.Boots(), w.h.Firmware()
		w.kernel = "6.2"
		next := w.system("next", func(s *fleet.System) { s.KernelParams = "loglevel=5" })
		begin := time.Now()
		seq := w.promote(0, next, "--action", "reboot")
		s.Took("promote to confirmed", time.Since(begin))
		w.is(seq, "ok", next, next)
		if st := w.h.State(); st.BootID == before.BootID || st.Booted != next || w.h.Boots() != boots+1 || w.h.Firmware() != firmware {
			s.Errorf("%d boots, %d of them by the firmware: %+v", w.h.Boots()-boots, w.h.Firmware()-firmware, st)
		}
		if v := w.h.Must("cat", "/run/initrd-version"); v != "6.2" {
			s.Errorf("the initrd of kernel %s runs", v)
		}
		// The boot loader would put its initrd before it.
		if line := w.h.Must("cat", "/proc/cmdline"); line != "init="+next+"/init "+w.h.Must("cat", next+"/kernel-params") {
			s.Errorf("the kernel was started with %s", line)
		}
		if r := w.reported(); r.Slot != nil {
			s.Errorf("the slot is not given back: %+v", r)
		}
		w.now = next
	})
	w.story(t, "kexec: tmpfs root", func(s *fleet.Story, w *world) {
		w.h.Forget(true)
		boots, firmware := w.h.Boots(), w.h.Firmware()
		next := w.system("forgets")
		seq := w.promote(0, next, "--action", "reboot")
		w.is(seq, "ok", next, next)
		if root := w.h.Root(); root != "tmpfs" || w.h.Boots() != boots+1 || w.h.Firmware() != firmware {
			s.Errorf("the root is %s after %d boots, %d by the firmware", root, w.h.Boots()-boots, w.h.Firmware()-firmware)
		}
		w.now = next
	})
	w.story(t, "kexec: a system that does not boot: the boot loader takes over, counts its tries, and goes back", func(s *fleet.Story, w *world) {
		w.h.WriteFile("/var/lib/fleet/tries", "2\n", 0o644)
		boots, firmware, panics := w.h.Boots(), w.h.Firmware(), strings.Count(w.h.Console(), "Kernel panic")
		bad := w.system("bad", func(s *fleet.System) { s.KernelParams = "loglevel=4 init=/nowhere" })
		begin := time.Now()
		seq := w.send(bad, "--action", "reboot")
		w.h.AwaitBoot(boots + 4) // by kexec, twice by the boot loader, and the old one
		w.becomes(seq, "reverted")
		s.Took("promote to reverted", time.Since(begin))
		w.is(seq, "reverted", w.now, w.now)
		if n := strings.Count(w.h.Console(), "Kernel panic") - panics; n != 3 || w.h.Firmware() != firmware+3 {
			s.Errorf("%d kernel panics, and the firmware was started %d times", n, w.h.Firmware()-firmware)
		}
		w.h.Sh("rm /var/lib/fleet/tries; sync -f /var/lib/fleet")
	})
	w.story(t, "kexec: no kexec-tools: through the firmware, and the log says why", func(s *fleet.Story, w *world) {
		boots, firmware := w.h.Boots(), w.h.Firmware()
		w.h.Sh("mv /usr/sbin/kexec /usr/sbin/kexec.away")
		next := w.system("without")
		seq := w.promote(0, next, "--action", "reboot")
		w.is(seq, "ok", next, next)
		if w.h.Boots() != boots+1 || w.h.Firmware() != firmware+1 {
			s.Errorf("%d boots, %d of them by the firmware", w.h.Boots()-boots, w.h.Firmware()-firmware)
		}
	})
}
