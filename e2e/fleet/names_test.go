package fleet

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestNames is what happens when machines and host names do not fit together: renamed, taken by two,
// installed anew, copied.
func TestNames(t *testing.T) {
	onlyLong(t)
	fw := newFollower(t, 3)
	// called makes a system whose agent has another host name, and the target as before.
	called := func(fw *follower, version, target, name string) string {
		fw.T.Helper()
		return fw.system(version, func(s *System) {
			s.AgentConfig = fmt.Sprintf("host = %q\ntarget = %q\n", name, target) + fw.config
		})
	}
	release := func(fw *follower, h1, h2, h3 string) {
		fw.T.Helper()
		if out := fw.narwharf("promote", "web", "h1="+h1, "h2="+h2, "h3="+h3); out.Code != 0 {
			fw.T.Fatalf("%v", out)
		}
	}
	settles := func(s *Story, fw *follower, name, path string, machine *Host) {
		s.Helper()
		Eventually(s, 90*time.Second, name+" runs what the channel says", func() error {
			if r := fw.named(name); !r.Converged || r.Status.Current != path {
				return fmt.Errorf("%+v\n%s", r, tail(machine.Journal("narwharf.service"), 10))
			}
			return nil
		})
	}
	var a, b string
	fw.story(t, "5: a host gets another name by a release", func(s *Story, fw *follower) {
		a = fw.system("a")
		release(fw, a, a, a)
		for _, h := range fw.Hosts() {
			settles(s, fw, h.Name(), a, h)
		}
		b = called(fw, "renamed", "h1", "one")
		release(fw, b, a, a)
		settles(s, fw, "one", b, fw.Host("h1"))
		if r := fw.named("one"); r.Identity.Was != "h1" || r.Identity.Instance != fw.named("h1").Identity.Instance {
			s.Errorf("%+v", r)
		}
		fw.alarms(s)
	})
	fw.story(t, "5: a release that takes another host's name goes back", func(s *Story, fw *follower) {
		bad := called(fw, "thief", "h2", "h3")
		release(fw, b, bad, a)
		Eventually(s, 90*time.Second, "h2 is back", func() error {
			if r := fw.named("h2"); r.Status.State != "reverted" || r.Status.Current != a || !strings.Contains(r.Status.Error, "another machine has the name h3") {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		if st := fw.Host("h2").State(); st.Current != a || st.BootEntry != a {
			s.Errorf("%+v", st)
		}
		fw.alarms(s, "host.identity h3")
		if r := fw.named("h3"); len(r.Conflict) != 0 || r.Status.Current != a { // h2 speaks as h2 again
			s.Errorf("%+v", r)
		}
		release(fw, b, a, a)
		settles(s, fw, "h2", a, fw.Host("h2"))
	})
	fw.story(t, "5: a machine that was installed anew is approved", func(s *Story, fw *follower) {
		h, was := fw.Host("h3"), fw.named("h3").Identity.Instance
		h.Sh("systemctl stop narwharf; rm -rf /nix/var/narwharf; systemctl start narwharf")
		Eventually(s, 60*time.Second, "the new one is refused", func() error {
			if r := fw.named("h3"); len(r.Conflict) == 0 || r.Conflict[len(r.Conflict)-1].Address != h.Address() {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		now := strings.TrimSpace(h.ReadFile("/nix/var/narwharf/instance"))
		if text := h.Journal("narwharf.service"); !strings.Contains(text, "narwharf host approve h3 --instance "+now) {
			s.Errorf("its journal does not say what to do:\n%s", tail(text, 5))
		}
		if r := fw.named("h3"); r.Identity.Instance != was {
			s.Errorf("%+v", r)
		}
		begin := time.Now()
		if out := fw.CI().Narwharf("host", "approve", "h3", "--instance", now); out.Code != 0 || !strings.Contains(out.Stdout, now) {
			s.Fatalf("%v", out)
		}
		settles(s, fw, "h3", a, h)
		s.Took("approve to reported", time.Since(begin))
		fw.alarms(s, "host.identity h3")
	})
	fw.story(t, "5: a disk that was copied with the agent's state", func(s *Story, fw *follower) {
		one, two := fw.Host("h2"), fw.Host("h3")
		instance := one.ReadFile("/nix/var/narwharf/instance")
		two.Sh("systemctl stop narwharf; rm -rf /nix/var/narwharf")
		two.WriteFile("/nix/var/narwharf/instance", instance, 0o600)
		if out := fw.CI().Narwharf("host", "remove", "h3"); out.Code != 0 {
			s.Fatalf("%v", out)
		}
		two.Sh("systemctl start narwharf")
		Eventually(s, 3*time.Minute, "the server says so", func() error {
			if r := fw.named("h2"); !r.Identity.Cloned {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		fw.alarms(s, "host.cloned")
		// As docs/hosts.md says.
		two.Sh("systemctl stop narwharf; rm -f /nix/var/narwharf/instance")
		for _, args := range [][]string{{"host", "approve", "h2", "--instance", strings.TrimSpace(instance)}, {"host", "remove", "h3"}} {
			if out := fw.CI().Narwharf(args...); out.Code != 0 {
				s.Errorf("%v", out)
			}
		}
		two.Sh("systemctl start narwharf")
		c := fw.system("c")
		release(fw, b, c, c)
		settles(s, fw, "h2", c, one)
		settles(s, fw, "h3", c, two)
		if r := fw.named("h2"); r.Identity.Cloned {
			s.Errorf("%+v", r)
		}
	})
	fw.story(t, "5: the former name stays until it is removed", func(s *Story, fw *follower) {
		Eventually(s, 2*time.Minute, "it is offline", func() error {
			if r := fw.named("h1"); r.Host != "h1" || r.Online {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		if out := fw.CI().Narwharf("host", "remove", "h1"); out.Code != 0 || fw.named("h1").Host != "" {
			s.Errorf("%v", out)
		}
	})
}

// A namedHost is what the server knows of a host name.
type namedHost struct {
	hostReport
	Online   bool
	Identity struct {
		Instance, Was string
		Cloned        bool
	}
	Conflict []struct{ Instance, Address string }
}

// named is what the server says of a host name; empty if it knows none.
func (fw *follower) named(name string) namedHost {
	fw.T.Helper()
	var h namedHost
	out := fw.CI().Narwharf("host", "show", name, "--json")
	if out.Code != 0 {
		return h
	}
	if err := json.Unmarshal([]byte(out.Stdout), &h); err != nil {
		fw.T.Fatalf("%v: %v", err, out)
	}
	return h
}

// alarms checks that the alarms since the last call begin with those: a kind, and perhaps a host.
func (fw *follower) alarms(s *Story, want ...string) {
	s.Helper()
	text := fw.CI().Sh(`since=$(cat /root/seen 2> /dev/null || echo 1)
curl -fsS -H "Authorization: Bearer $(cat /root/token)" "http://cache/api/v1/events?since=$since"`)
	var page struct {
		Next   int64
		Events []struct {
			Kind, Host, Text string
			Alarm            bool
		}
	}
	if err := json.Unmarshal([]byte(text), &page); err != nil {
		s.Fatalf("%v: %s", err, text)
	}
	fw.CI().WriteFile("/root/seen", fmt.Sprint(page.Next), 0o600)
	var got []string
	for _, e := range page.Events {
		if e.Alarm {
			got = append(got, e.Kind+" "+e.Host+": "+e.Text)
		}
	}
	for i, w := range want {
		if i >= len(got) || !strings.HasPrefix(got[i], w) {
			s.Errorf("the alarms are\n%s\nwant %q", strings.Join(got, "\n"), want)
			return
		}
	}
	if len(got) != len(want) {
		s.Errorf("the alarms are\n%s\nwant %q", strings.Join(got, "\n"), want)
	}
}
