package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestDeploy is the main job: promote a channel, and real hosts run it seconds
// later; what breaks goes back by itself, and everybody is told the truth. With
// -short (`make e2e-smoke`) there are two hosts, of which the second has the
// newer Nix, and the stories without which nothing else makes sense. The root of
// h2 is tmpfs in both.
func TestDeploy(t *testing.T) {
	hosts := 3
	breaks := []Misbehaviour{UnitFails, ActivationFails, Unhealthy, NetworkDown, NetworkSilent, CheckFails}
	if testing.Short() {
		hosts = 2
		breaks = []Misbehaviour{ActivationFails, Unhealthy, NetworkDown}
	}
	fw := newFollower(t, hosts, forgetful("h2"))
	story := func(name string, tell func(s *Story, fw *follower)) { fw.story(t, name, tell) }
	var a, b string
	story("4: promote, every host runs it", func(s *Story, fw *follower) {
		a = fw.system("a")
		begin := time.Now()
		out := fw.promote(0, a)
		s.Took("promote to last confirmed", time.Since(begin))
		for _, h := range fw.Hosts() {
			if !strings.Contains(out.Stdout, h.Name()) {
				s.Errorf("--wait does not tell of %s:\n%v", h.Name(), out)
			}
		}
		fw.run(a, "a", "ok")
	})
	story("the same again changes nothing", func(s *Story, fw *follower) {
		if out := fw.promote(0, a); !strings.Contains(out.Stdout, "seq 2") {
			s.Errorf("%v", out)
		}
		fw.run(a, "a", "ok")
	})
	story("10: A, B, A by rollback", func(s *Story, fw *follower) {
		b = fw.system("b")
		begin := time.Now()
		fw.promote(0, b)
		s.Took("promote to last confirmed", time.Since(begin))
		fw.run(b, "b", "ok")
		if out := fw.narwharf("rollback", "web", "--to", "last-good", "--wait"); out.Code != 0 {
			s.Errorf("%v", out)
		}
		fw.run(a, "a", "ok")
	})
	for _, m := range breaks {
		story("6: goes back by itself: "+string(m), func(s *Story, fw *follower) {
			bad := fw.system("bad-"+string(m), misbehave(m))
			begin := time.Now()
			fw.promote(3, bad)
			s.Took("promote to last reverted", time.Since(begin))
			fw.run(a, "a", "reverted")
		})
	}
	if testing.Short() {
		return
	}
	story("and the next good one goes out", func(s *Story, fw *follower) {
		b = fw.system("b2")
		fw.promote(0, b)
		fw.run(b, "b2", "ok")
	})
	story("hosts that were off for three seqs", func(s *Story, fw *follower) {
		off := []string{"h2", "h3"}
		fw.EachOf(off, func(h *Host) error { h.PowerOff(); return nil })
		var last string
		for _, v := range []string{"c1", "c2", "c3"} {
			last = fw.system(v)
			fw.promote(0, last)
		}
		fw.run(last, "c3", "ok", "h1")
		begin := time.Now()
		fw.EachOf(off, func(h *Host) error { h.Boot(); return nil })
		Eventually(s, 90*time.Second, "h2 and h3 catch up", func() error {
			for name, r := range fw.reported() {
				if !r.Converged {
					return fmt.Errorf("%s is %+v", name, r)
				}
			}
			return nil
		})
		s.Took("boot to confirmed", time.Since(begin))
		fw.run(last, "c3", "ok")
		a = last
	})
	story("test, then reboot: back on the old system", func(s *Story, fw *follower) {
		path := fw.system("tested")
		fw.promote(0, path, "--action", "test")
		for _, h := range fw.Hosts() {
			if st := h.State(); st.Current != path || st.Profile != a || st.BootEntry != a || st.Hello != "tested" {
				s.Errorf("%s: %+v", h.Name(), st)
			}
		}
		fw.EachOf([]string{"h1", "h2"}, func(h *Host) error {
			h.Reboot()
			Eventually(s, time.Minute, h.Name()+" says that its test is over", func() error {
				if r := fw.reported()[h.Name()]; r.Status.State != "test_over" || r.Status.Current != a {
					return fmt.Errorf("%s is %+v", h.Name(), r)
				}
				return nil
			})
			if st := h.State(); st.Current != a || st.Hello != "c3" {
				return fmt.Errorf("after the reboot: %+v", st)
			}
			return nil
		})
	})
}
