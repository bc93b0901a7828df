package vm_test

import (
	"strings"
	"testing"

	"narwharf/e2e/fleet"
	"narwharf/e2e/fleet/vm"
)

// TestVMPower cuts the power in every state in which there is something to lose. What boots next is
// the system that the boot entry names, whole; and the agent says what became of the release. The root
// is tmpfs from the first cut to the last but one.
func TestVMPower(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	harness(t, w)
	// cut cuts the power when the machine is held at a point, and boots it.
	cut := func(w *world, mark int, point string) {
		w.T.Helper()
		w.h.AwaitConsole(mark, "fleet: held "+point, vm.BootTimeout)
		w.h.PowerCut()
	}
	w.story(t, "a power cut while staging: what was not written is fetched again; then, tmpfs root, while activating", func(s *fleet.Story, w *world) {
		before := w.h.State()
		w.h.Forget(true)
		const name = "etc/heavy"
		a := w.system("staged", func(s *fleet.System) {
			s.Etc = map[string]string{"heavy": strings.Repeat("all of these bytes have to be here\n", 3000)}
		})
		file := w.CI().Must("readlink", "-f", a+"/"+name)
		w.h.Hold("realised")
		w.h.Hold("activating")
		mark := w.h.Mark()
		seq := w.send(a)
		cut(w, mark, "realised")
		// Nix's database knows the path, and its files have no bytes yet.
		s.Note("%d of 105000 bytes were on the disk", len(w.h.DiskFile("store", strings.TrimPrefix(file, "/nix"))))
		w.h.Boot()
		cut(w, mark, "activating")
		w.h.Boot()
		r := w.is(seq, "reverted", w.now, w.now)
		if !strings.Contains(r.Status.Error, "reboot") {
			s.Errorf("it does not say why: %s", r.Status.Error)
		}
		if text := w.h.ReadFile(file); len(text) != 105000 {
			s.Errorf("a file that was staged in an unclean boot has %d bytes", len(text))
		}
		if st := w.h.State(); st.BootID == before.BootID || st.Booted != w.now {
			s.Errorf("%+v", st)
		}
	})
	w.story(t, "tmpfs root: a power cut in the probation: the old system", func(s *fleet.Story, w *world) {
		b := w.system("probation")
		w.h.Hold("probation")
		mark := w.h.Mark()
		seq := w.send(b)
		cut(w, mark, "probation")
		w.h.Boot()
		if r := w.is(seq, "reverted", w.now, w.now); !strings.Contains(r.Status.Error, "reboot") {
			s.Errorf("it does not say why: %s", r.Status.Error)
		}
		if st := w.h.State(); st.Booted != w.now || w.h.Root() != "tmpfs" {
			s.Errorf("%+v", st)
		}
	})
	w.story(t, "a power cut while committing: tmpfs root, before the boot entry: the old system; disk, after it: the new one", func(s *fleet.Story, w *world) {
		c := w.system("committed")
		w.h.Forget(false)
		w.h.Hold("before-entry")
		w.h.Hold("after-entry")
		mark := w.h.Mark()
		seq := w.send(c)
		cut(w, mark, "before-entry")
		w.h.Boot()
		if st := w.h.State(); st.Booted != w.now || st.Current != w.now {
			s.Errorf("before the boot entry: %+v", st)
		}
		cut(w, mark, "after-entry") // of the agent's next try
		w.h.Boot()
		r := w.is(seq, "ok", c, c)
		if st := w.h.State(); st.Booted != c {
			s.Errorf("after the boot entry: %+v, %+v", st, r)
		}
		w.now = c
	})
}
