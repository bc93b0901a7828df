package vm_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"narwharf/e2e/fleet"
	"narwharf/e2e/fleet/vm"
)

// TestVMHarness holds what the other tests build on: that a machine is one.
func TestVMHarness(t *testing.T) {
	begin := time.Now()
	f, h := vm.New(t, fleet.Options{})
	made := time.Since(begin)
	begin = time.Now()
	h.Boot()
	booted := time.Since(begin)
	fleet.Run(t, "vm: boots by firmware and boot loader", func(s *fleet.Story) {
		h := h.For(s)
		s.Took("made", made)
		s.Took("boot", booted)
		st := h.State()
		if st.Booted == "" || st.Booted != st.Current || st.Booted != st.Profile || st.Booted != st.BootEntry || st.Hello != "0" || st.Running != "running" {
			s.Errorf("%+v", st)
		}
		if line := h.Must("cat", "/proc/cmdline"); !strings.Contains(line, "init="+st.Booted+"/init") {
			s.Errorf("the kernel was started with %s", line)
		}
		if v := h.Must("cat", "/run/initrd-version"); v != "6.1" {
			s.Errorf("the initrd is of %q", v)
		}
		if got := f.Server().Reach("h1:8000"); got != "open" {
			s.Errorf("h1:8000 is %s", got)
		}
	})
	fleet.Run(t, "vm: programs run in it", func(s *fleet.Story) {
		h := h.For(s)
		if out := h.Exec("/bin/sh", "-c", `printf '%s|' "$@"; echo no >&2; exit 7`, "sh", "a b", "", "ü\n"); out.Code != 7 || out.Stdout != "a b||ü\n|" || out.Stderr != "no\n" {
			s.Errorf("%v", out)
		}
		text := strings.Repeat("all of it\n", 10000)
		h.WriteFile("/root/text", text, 0o600)
		if h.ReadFile("/root/text") != text {
			s.Error("a file is not what was written")
		}
		const pid = "/run/sleeper"
		job := h.Start("/bin/sh", "-c", "echo $$ > "+pid+"; exec sleep 4711")
		fleet.Eventually(s, time.Minute, "the program runs", func() error { return errorOf(h.Exec("test", "-s", pid)) })
		job.Kill()
		fleet.Eventually(s, time.Minute, "the program ends with its caller", func() error {
			return errorOf(h.Exec("/bin/sh", "-c", "! kill -0 $(cat "+pid+")"))
		})
	})
	fleet.Run(t, "vm: a power cut loses what is not flushed", func(s *fleet.Story) {
		h := h.For(s)
		before := h.State()
		h.Sh(`echo kept > /nix/kept; sync -f /nix; echo lost > /nix/lost; echo lost > /root/lost`)
		h.PowerCut()
		if h.On() {
			s.Error("it is on")
		}
		h.Boot()
		if out := h.Exec("cat", "/nix/kept", "/nix/lost", "/root/lost"); out.Stdout != "kept\n" || strings.Count(out.Stderr, "No such file") != 2 {
			s.Errorf("%v", out)
		}
		if st := h.State(); st.BootID == before.BootID || st.Booted != before.Booted {
			s.Errorf("%+v", st)
		}
	})
	fleet.Run(t, "vm: reboots into what the boot entry names", func(s *fleet.Story) {
		h, f := h.For(s), f.For(s)
		before, boots := h.State(), h.Boots()
		next := f.CI().BuildSystem(fleet.System{Version: "1", Kernel: "6.2", KernelParams: "loglevel=4 fleet.here"})
		f.CI().Push(next)
		h.Must("nix-store", "--realise", next)
		h.SetProfile(next)
		if out := h.Switch(next, "boot"); out.Code != 0 {
			s.Fatalf("%v", out)
		}
		if st := h.State(); st.Current != before.Current || st.BootEntry != next {
			s.Errorf("%+v", st)
		}
		begin := time.Now()
		h.Reboot()
		s.Took("reboot", time.Since(begin))
		st := h.State()
		if st.BootID == before.BootID || st.Booted != next || st.Current != next || st.Hello != "1" || h.Boots() != boots+1 {
			s.Errorf("boot %d: %+v", h.Boots(), st)
		}
		if v := h.Must("cat", "/run/initrd-version", "/proc/cmdline"); !strings.HasPrefix(v, "6.2") || !strings.Contains(v, "fleet.here") {
			s.Errorf("the new kernel was not started: %s", v)
		}
		h.PowerOff()
		if h.On() {
			s.Error("it is on")
		}
	})
}

func errorOf(out fleet.Output) error {
	if out.Code != 0 {
		return fmt.Errorf("%v", out)
	}
	return nil
}
