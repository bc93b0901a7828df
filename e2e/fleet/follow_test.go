package fleet

import (
	"fmt"
	"testing"
	"time"
)

// TestFollow asks whether hosts follow a channel at all: the stories go on from here.
func TestFollow(t *testing.T) {
	f := New(t, Options{Follow: "web"})
	Run(t, "promote, and every host runs it", func(s *Story) {
		f := f.For(s)
		ci := f.CI()
		v1 := ci.BuildSystem(f.System("1"))
		begin := time.Now()
		ci.Push(v1)
		s.Took("nix copy", time.Since(begin))
		begin = time.Now()
		if out := ci.Promote(v1, "--wait"); out.Code != 0 {
			s.Fatalf("%v", out)
		}
		s.Took("promote --wait", time.Since(begin))
		for _, h := range f.Hosts() {
			if st := h.State(); st.Current != v1 || st.Profile != v1 || st.BootEntry != v1 || st.Hello != "1" {
				s.Errorf("%s: %+v", h.Name(), st)
			}
		}
	})
	Run(t, "a system that cuts the network off", func(s *Story) {
		f := f.For(s)
		ci := f.CI()
		old := f.Host("h1").State().Current
		bad := ci.BuildSystem(f.System("bad", NetworkDown))
		ci.Push(bad)
		begin := time.Now()
		if out := ci.Promote(bad, "--wait"); out.Code != 3 {
			s.Errorf("want exit code 3 for reverted: %v", out)
		}
		s.Took("promote --wait", time.Since(begin))
		for _, h := range f.Hosts() {
			Eventually(s.T, 20*time.Second, h.Name()+" is back", func() error {
				if st := h.State(); st.Current != old || st.BootEntry != old || st.Hello != "1" || h.Reach("cache:80") != "open" {
					return fmt.Errorf("%+v", st)
				}
				return nil
			})
		}
	})
}
