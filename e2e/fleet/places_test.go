package fleet

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPlaces lets hosts follow a channel whose disks are not like others': h1 forgets all but /nix and
// /boot at every boot, h2 has a small /nix.
func TestPlaces(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	fw := newFollower(t, 2, func(name string, h *HostOptions) {
		h.Suite = "bookworm"
		if h.TmpfsRoot = name == "h1"; !h.TmpfsRoot {
			h.StoreSize = 160 << 20 // what a system needs, three times
		}
	})
	old := ""
	fw.story(t, "13: tmpfs root: promote, go back, boot", func(s *Story, fw *follower) {
		old = fw.system("kept")
		fw.promote(0, old)
		fw.run(old, "kept", "ok")
		h := fw.Host("h1")
		h.WriteFile("/var/lib/forgotten", "", 0o644)
		h.Reboot()
		if h.Exec("test", "-e", "/var/lib/forgotten").Code == 0 {
			s.Error("the root was kept")
		}
		fw.run(old, "kept", "ok")
		fw.promote(3, fw.system("sick", misbehave(Unhealthy)))
		fw.run(old, "kept", "reverted")
		h.Reboot()
		// The entry is denied on, and the release after it is taken.
		fw.run(old, "kept", "reverted")
		old = fw.system("after-boot")
		fw.promote(0, old)
		fw.run(old, "after-boot", "ok")
	})
	last := ""
	become := map[string]string{"staging": "ok", "activating": "reverted", "probation": "reverted", "committing": "ok"}
	for _, at := range [][2]string{{"staging", "activating"}, {"activating", "staging"}, {"probation", "committing"}, {"committing", "probation"}} {
		fw.story(t, "13: power cut: tmpfs root while "+at[0]+", disk while "+at[1], func(s *Story, fw *follower) {
			path := fw.system("cut-"+at[0], slowly(1, SlowActivation))
			seq, sent := fw.sending(path)
			fw.each(func(h *Host) error {
				state := at[slices.Index(fw.names, h.Name())]
				states, late := []string{state}, time.Duration(0)
				switch state {
				case "committing": // it may be over too soon
					states = append(states, "ok")
				case "probation":
					late = rand.N(150 * time.Millisecond)
				}
				return fw.cut(h, seq, late, old, path, states, []string{become[state]})
			})
			sent()
			last = "after-" + at[0]
			old = fw.system(last)
			fw.promote(0, old)
			fw.run(old, last, "ok")
		})
	}
	fw.story(t, "15: full disk: told, nothing half there; room, and it goes on", func(s *Story, fw *follower) {
		for _, c := range []struct {
			name string
			free int // bytes that are left
		}{{"no room for the closure", 700_000}, {"no room at all", 0}} {
			h := fw.Host("h2")
			h.Must("nix-store", "--gc")
			h.Sh(`cat /dev/zero > /nix/junk 2> /dev/null || truncate -s "-$1" /nix/junk`, fmt.Sprint(c.free))
			version := strings.Map(letters, c.name)
			path := fw.system(version)
			seq := fw.send("h1="+old, "h2="+path)
			Eventually(s, time.Minute, "h2 says that its disk is full", func() error {
				r := fw.reported()["h2"]
				if c.free == 0 && r.Status.Current == old && strings.Contains(r.Status.Error, "no space left") {
					return nil // its journal has no room, so that it does nothing at all
				}
				if r.Status.State != "stage_failed" {
					return fmt.Errorf("%+v\n%s", r, tail(h.Journal("narwharf.service"), 10))
				}
				return nil
			})
			if st := h.State(); st.Current != old || st.Profile != old || st.BootEntry != old {
				s.Errorf("%+v", st)
			}
			h.Must("rm", "/nix/junk")
			begin := time.Now()
			state, err := fw.truthful(h, seq, old, path)
			if err != nil || state != "ok" {
				s.Fatalf("%s: %v", state, err)
			}
			s.Took(c.name+": room to confirmed", time.Since(begin))
			fw.promote(0, old)
			fw.run(old, last, "ok")
		}
	})
}
