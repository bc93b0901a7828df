package fleet

import (
	"fmt"
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
		if name == "h1" {
			h.TmpfsRoot = true
		} else {
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
	for _, c := range []struct{ at, become string }{{"staging", "ok"}, {"activating", "reverted"}, {"probation", "reverted"}, {"committing", "ok"}} {
		over := c.at // the state after it, where it may be over too soon
		if c.at == "committing" {
			over = "ok"
		}
		fw.story(t, "13: tmpfs root: power cut while "+c.at, func(s *Story, fw *follower) {
			path := fw.system("cut-"+c.at, slowly(1, SlowActivation))
			seq := fw.send(path)
			h := fw.Host("h1")
			if _, err := h.await(time.Minute, seq, c.at, over); err != nil {
				s.Fatal(err)
			}
			h.PowerCut()
			h.Boot()
			state, err := fw.truthful(h, seq, old, path)
			if err == nil && state == "armed" {
				h.Reboot()
				state, err = fw.truthful(h, seq, old, path)
			}
			if err != nil || state != c.become {
				s.Fatalf("%s, want %s: %v\n%s", state, c.become, err, tail(h.Journal("narwharf.service"), 40))
			}
			if state, err := fw.truthful(fw.Host("h2"), seq, old, path); err != nil || state != "ok" {
				s.Fatalf("the other host is %s: %v", state, err)
			}
			old = fw.system("after-" + c.at)
			fw.promote(0, old)
			fw.run(old, "after-"+c.at, "ok")
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
			fw.run(old, "after-committing", "ok")
		}
	})
}
