package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestByHand deploys as an administrator would who has a cache and no agent: what the stories of the
// agent are built on.
func TestByHand(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	f := New(t, Options{
		System: func(*Fleet) System { return System{Version: "0", Agent: AgentStub} },
		Host:   func(_ *Fleet, name string, h *HostOptions) { h.TmpfsRoot = name == "h2" },
	})
	both := []string{"h1", "h2"} // kinds of root
	old := f.Host("h1").State().Current
	var v1, v2 string
	Run(t, "build, sign, copy", func(s *Story) {
		f := f.For(s)
		ci := f.CI()
		begin := time.Now()
		v1 = ci.BuildSystem(System{Version: "1", Agent: AgentStub})
		s.Took("build", time.Since(begin))
		closure := ci.Closure(v1)
		if n := len(closure); n < 10 || n > 20 {
			s.Errorf("a system is %d paths", n)
		}
		if changed := without(closure, ci.Closure(old)); len(changed) < 2 || len(changed) > 3 {
			s.Errorf("a new version replaces %v", changed)
		}
		if f.Host("h1").Realise(v1).Code == 0 {
			s.Error("a host has what was never uploaded")
		}
		begin = time.Now()
		ci.Push(v1)
		s.Took("nix copy", time.Since(begin))
		narinfo := get(s.T, ci.HTTP(), f.Server().URL()+"/"+strings.TrimPrefix(v1, "/nix/store/")[:32]+".narinfo")
		if !strings.Contains(narinfo, "\nSig: "+ciKey+":") {
			s.Errorf("not signed by CI: %s", narinfo)
		}
	})
	Run(t, "realise and switch", func(s *Story) {
		f := f.For(s)
		begin := time.Now()
		f.Each(func(h *Host) error {
			// The failed attempt of h1 is remembered for an hour unless one says otherwise.
			h.Must("nix-store", "--realise", v1, "--option", "narinfo-cache-negative-ttl", "0")
			h.SetProfile(v1)
			if out := h.Switch(v1, "switch"); out.Code != 0 {
				s.Errorf("%v", out)
			}
			return nil
		})
		s.Took("three hosts", time.Since(begin))
		for _, h := range f.Hosts() {
			st := h.State()
			if st.Current != v1 || st.Profile != v1 || st.BootEntry != v1 || st.Booted != old || st.Hello != "1" || st.Generation != "system-2-link" {
				s.Errorf("%s: %+v", h.Name(), st)
			}
			if body := get(s.T, f.CI().HTTP(), "http://"+h.Name()+":8000/"); body != "1\n" {
				s.Errorf("%s answers %q", h.Name(), body)
			}
		}
	})
	Run(t, "test, then reboot", func(s *Story) {
		f := f.For(s)
		s.Note("%s", f.Roots())
		v2 = f.CI().BuildSystem(System{Version: "2", Agent: AgentStub, Kernel: "6.2"})
		f.CI().Push(v2)
		f.EachOf(both, func(h *Host) error {
			h.Must("nix-store", "--realise", v2)
			if out := h.Switch(v2, "test"); out.Code != 0 {
				return fmt.Errorf("%v", out)
			}
			if st := h.State(); st.Current != v2 || st.Profile != v1 || st.BootEntry != v1 || st.Hello != "2" {
				return fmt.Errorf("after test: %+v", st)
			}
			begin := time.Now()
			h.Reboot()
			s.Took("reboot", time.Since(begin))
			if st := h.State(); st.Current != v1 || st.Booted != v1 || st.Hello != "1" || st.Running != "running" {
				return fmt.Errorf("after test and reboot: %+v", st)
			}
			return nil
		})
	})
	Run(t, "boot, then reboot", func(s *Story) {
		f := f.For(s)
		s.Note("%s", f.Roots())
		v3 := f.CI().BuildSystem(System{Version: "3"})
		f.CI().Push(v3)
		f.EachOf(both, func(h *Host) error {
			h.SetProfile(v2)
			if out := h.Switch(v2, "boot"); out.Code != 0 {
				return fmt.Errorf("%v", out)
			}
			if st := h.State(); st.Current != v1 || st.Booted != v1 || st.BootEntry != v2 || st.Hello != "1" {
				return fmt.Errorf("after boot: %+v", st)
			}
			h.Reboot()
			if st := h.State(); st.Current != v2 || st.Booted != v2 || st.Hello != "2" {
				return fmt.Errorf("after boot and reboot: %+v", st)
			}
			// A profile alone changes nothing, and an entry alone (a system that is no generation) cannot
			// be written: the trap of systemd-boot.
			h.SetProfile(v1)
			h.Reboot()
			if st := h.State(); st.Current != v2 || st.Profile != v1 {
				return fmt.Errorf("a profile without its boot entry: %+v", st)
			}
			h.Must("nix-store", "--realise", v3)
			if out := h.Switch(v3, "boot"); out.Code != 0 {
				return fmt.Errorf("%v", out)
			}
			if st := h.State(); st.BootEntry != v2 {
				return fmt.Errorf("the entry names %s, which is no generation", st.BootEntry)
			}
			return nil
		})
	})
	Run(t, "the narwharf under test as agent", func(s *Story) {
		f := f.For(s)
		h, ci := f.Host("h3"), f.CI()
		begin := time.Now()
		system := ci.BuildSystem(System{Version: "real", Agent: ci.Agent(), AgentConfig: "# nothing yet\n"})
		ci.Push(system)
		s.Took("build and copy", time.Since(begin))
		begin = time.Now()
		h.Must("nix-store", "--realise", system)
		s.Took("realise", time.Since(begin))
		version := h.Must(system+"/sw/bin/narwharf", "version")
		if want := f.Server().Must("narwharf", "version"); version != want {
			s.Errorf("the host's narwharf is %q, the server's %q", version, want)
		}
		if unit := h.ReadFile(system + "/etc/systemd/system/narwharf.service"); !strings.Contains(unit, "X-RestartIfChanged=false") {
			s.Error(unit)
		}
	})
	Run(t, "power cut in a switch", func(s *Story) {
		f := f.For(s)
		s.Note("%s", f.Roots())
		slow := f.CI().BuildSystem(System{Version: "slow", Misbehave: []Misbehaviour{Slow}})
		f.CI().Push(slow)
		f.EachOf(both, func(h *Host) error {
			h.Must("nix-store", "--realise", slow)
			if out := h.SwitchFor(2*time.Second, slow, "test"); !out.TimedOut {
				return fmt.Errorf("%v", out)
			}
			if st := h.State(); st.Current != slow {
				return fmt.Errorf("in the switch: %+v", st)
			}
			h.PowerCut()
			h.Boot()
			if st := h.State(); st.Current != v2 || st.Booted != v2 || st.Hello != "2" || st.Agent != "active" {
				return fmt.Errorf("after the power cut: %+v", st)
			}
			return nil
		})
	})
}

// without are the elements of a that are not in b.
func without(a, b []string) []string {
	in := map[string]bool{}
	for _, x := range b {
		in[x] = true
	}
	var rest []string
	for _, x := range a {
		if !in[x] {
			rest = append(rest, x)
		}
	}
	return rest
}
