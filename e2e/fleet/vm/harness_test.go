package vm_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"narwharf/e2e/fleet"
)

// harness tells that a machine is one: the other tests build on it.
func harness(t *testing.T, w *world) {
	t.Helper()
	w.story(t, "boots by firmware and boot loader", func(s *fleet.Story, w *world) {
		h := w.h
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
		if got := w.Server().Reach("h1:8000"); got != "open" {
			s.Errorf("h1:8000 is %s", got)
		}
	})
	w.story(t, "programs run in it", func(s *fleet.Story, w *world) {
		h := w.h
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
	w.story(t, "a power cut loses what is not flushed", func(s *fleet.Story, w *world) {
		h := w.h
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
}

func errorOf(out fleet.Output) error {
	if out.Code != 0 {
		return fmt.Errorf("%v", out)
	}
	return nil
}
