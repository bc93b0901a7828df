package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestNames is what happens when machines and host names do not fit together: renamed, taken by two,
// installed anew, copied. All of it happens to one host with its root on a disk, and to one whose root
// is tmpfs: h1 and h2 get other names, h3 and h4 the rest.
func TestNames(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	fw := newFollower(t, 4, forgetful("h2", "h4"))
	kinds := []string{"h3", "h4"}
	// called makes a system whose agent has another host name, and the target as before.
	called := func(fw *follower, version, target, name string) string {
		fw.T.Helper()
		return fw.system(version, func(s *System) {
			s.AgentConfig = fmt.Sprintf("host = %q\ntarget = %q\n", name, target) + fw.config
		})
	}
	release := func(fw *follower, systems ...string) {
		fw.T.Helper()
		args := []string{"web"}
		for i, system := range systems {
			args = append(args, fw.names[i]+"="+system)
		}
		if out := fw.narwharf("promote", args...); out.Code != 0 {
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
	var a string
	names := map[string]string{"h1": "one", "h2": "two"} // by the release, and what runs under them
	renamed := map[string]string{}
	fw.story(t, "5: a host gets another name by a release", func(s *Story, fw *follower) {
		since := fw.now()
		a = fw.system("a")
		release(fw, a, a, a, a)
		for _, h := range fw.Hosts() {
			settles(s, fw, h.Name(), a, h)
		}
		for was, name := range names {
			renamed[was] = called(fw, "renamed", was, name)
		}
		release(fw, renamed["h1"], renamed["h2"], a, a)
		for was, name := range names {
			settles(s, fw, name, renamed[was], fw.Host(was))
			if r := fw.named(name); r.Identity.Was != was || r.Identity.Instance != fw.named(was).Identity.Instance {
				s.Errorf("%+v", r)
			}
		}
		fw.alarms(s, since)
	})
	fw.story(t, "5: after a boot it is the same machine, also with another machine id", func(s *Story, fw *follower) {
		since := fw.now()
		before := fw.events()
		fw.each(func(h *Host) error {
			name, id := h.Name(), h.ReadFile("/etc/machine-id")
			if names[name] != "" {
				name = names[name]
			}
			was := fw.named(name)
			h.Reboot()
			boot := h.State().BootID
			Eventually(s, time.Minute, name+" reports of its new boot", func() error {
				if r := fw.named(name); r.Status.BootID != boot || !r.Converged || r.Identity != was.Identity || len(r.Conflict) != 0 {
					return fmt.Errorf("%+v, and was %+v", r, was)
				}
				return nil
			})
			if other := h.ReadFile("/etc/machine-id") != id; other != h.h.tmpfsRoot {
				return fmt.Errorf("%s has another machine id: %v", h.Name(), other)
			}
			return nil
		})
		fw.alarms(s, since)
		if after := fw.events(); strings.Count(after, "host.machine") != strings.Count(before, "host.machine")+2 {
			s.Errorf("two machines have another id, and the events say\n%s", after)
		}
	})
	fw.story(t, "5: a release that takes another host's name goes back", func(s *Story, fw *follower) {
		since := fw.now()
		takes := map[string]string{"h3": "h4", "h4": "h3"}
		release(fw, renamed["h1"], renamed["h2"], called(fw, "thief", "h3", "h4"), called(fw, "thief", "h4", "h3"))
		for name, other := range takes {
			Eventually(s, 90*time.Second, name+" is back", func() error {
				if r := fw.named(name); r.Status.State != "reverted" || r.Status.Current != a || !strings.Contains(r.Status.Error, "another machine has the name "+other) {
					return fmt.Errorf("%+v", r)
				}
				return nil
			})
			if st := fw.Host(name).State(); st.Current != a || st.BootEntry != a {
				s.Errorf("%+v", st)
			}
		}
		fw.alarms(s, since, "host.identity h3", "host.identity h4")
		for name := range takes {
			if r := fw.named(name); len(r.Conflict) != 0 || r.Status.Current != a { // both speak by their own names again
				s.Errorf("%+v", r)
			}
		}
		release(fw, renamed["h1"], renamed["h2"], a, a)
		for name := range takes {
			settles(s, fw, name, a, fw.Host(name))
		}
	})
	fw.story(t, "5: a machine that was installed anew is approved", func(s *Story, fw *follower) {
		since := fw.now()
		fw.EachOf(kinds, func(h *Host) error {
			name, was := h.Name(), fw.named(h.Name()).Identity.Instance
			h.Sh("systemctl stop narwharf; rm -rf /nix/var/narwharf; systemctl start narwharf")
			Eventually(s, 60*time.Second, "the new one is refused", func() error {
				if r := fw.named(name); len(r.Conflict) == 0 || r.Conflict[len(r.Conflict)-1].Address != h.Address() {
					return fmt.Errorf("%+v", r)
				}
				return nil
			})
			now := strings.TrimSpace(h.ReadFile("/nix/var/narwharf/instance"))
			Eventually(s, 30*time.Second, "its journal says what to do", func() error {
				if text := h.Journal("narwharf.service"); !strings.Contains(text, "narwharf host approve "+name+" --instance "+now) {
					return errors.New(tail(text, 5))
				}
				return nil
			})
			if r := fw.named(name); r.Identity.Instance != was {
				s.Errorf("%+v", r)
			}
			begin := time.Now()
			if out := fw.CI().Narwharf("host", "approve", name, "--instance", now); out.Code != 0 || !strings.Contains(out.Stdout, now) {
				return fmt.Errorf("%v", out)
			}
			settles(s, fw, name, a, h)
			s.Took("approve to reported", time.Since(begin))
			return nil
		})
		fw.alarms(s, since, "host.identity h3", "host.identity h4")
	})
	fw.story(t, "5: a disk that was copied with the agent's state", func(s *Story, fw *follower) {
		since := fw.now()
		one, two := fw.Host("h3"), fw.Host("h4")
		instance := one.ReadFile("/nix/var/narwharf/instance")
		two.Sh("systemctl stop narwharf; rm -rf /nix/var/narwharf")
		two.WriteFile("/nix/var/narwharf/instance", instance, 0o600)
		if out := fw.CI().Narwharf("host", "remove", "h4"); out.Code != 0 {
			s.Fatalf("%v", out)
		}
		two.Sh("systemctl start narwharf")
		Eventually(s, 3*time.Minute, "the server says so", func() error {
			if r := fw.named("h3"); !r.Identity.Cloned {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		fw.alarms(s, since, "host.cloned")
		// As docs/hosts.md says.
		two.Sh("systemctl stop narwharf; rm -f /nix/var/narwharf/instance")
		for _, args := range [][]string{{"host", "approve", "h3", "--instance", strings.TrimSpace(instance)}, {"host", "remove", "h4"}} {
			if out := fw.CI().Narwharf(args...); out.Code != 0 {
				s.Errorf("%v", out)
			}
		}
		two.Sh("systemctl start narwharf")
		c := fw.system("c")
		release(fw, renamed["h1"], renamed["h2"], c, c)
		settles(s, fw, "h3", c, one)
		settles(s, fw, "h4", c, two)
		if r := fw.named("h3"); r.Identity.Cloned {
			s.Errorf("%+v", r)
		}
	})
	fw.story(t, "5: the former name stays until it is removed", func(s *Story, fw *follower) {
		for was := range names {
			Eventually(s, 2*time.Minute, "it is offline", func() error {
				if r := fw.named(was); r.Host != was || r.Online {
					return fmt.Errorf("%+v", r)
				}
				return nil
			})
			if out := fw.CI().Narwharf("host", "remove", was); out.Code != 0 || fw.named(was).Host != "" {
				s.Errorf("%v", out)
			}
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

// An eventPage is what the server answers about its events.
type eventPage struct {
	Next   int64
	Events []struct {
		Kind, Host, Text string
		Alarm            bool
	}
}

// eventsSince is a page of the audit log, from a number on.
func (fw *follower) eventsSince(since int64) (page eventPage) {
	fw.T.Helper()
	text := fw.CI().Sh(fmt.Sprintf(`curl -fsS -H "Authorization: Bearer $(cat /root/token)" "http://cache/api/v1/events?since=%d"`, since))
	if err := json.Unmarshal([]byte(text), &page); err != nil {
		fw.T.Fatalf("%v: %s", err, text)
	}
	return page
}

// now is the number of the next event: what a story before raised is below it.
func (fw *follower) now() int64 {
	fw.T.Helper()
	for since := int64(1); ; {
		page := fw.eventsSince(since)
		if len(page.Events) == 0 {
			return max(since, page.Next)
		}
		since = page.Next
	}
}

// alarms waits until the alarms since an event are those that are wanted.
func (fw *follower) alarms(s *Story, since int64, want ...string) {
	s.Helper()
	Eventually(s, 30*time.Second, "the alarms are as they should be", func() error {
		var got []string
		for _, e := range fw.eventsSince(since).Events {
			if e.Alarm {
				got = append(got, e.Kind+" "+e.Host+": "+e.Text)
			}
		}
		slices.Sort(got)
		if !slices.EqualFunc(got, want, strings.HasPrefix) {
			return fmt.Errorf("the alarms are\n%s\nwant %q", strings.Join(got, "\n"), want)
		}
		return nil
	})
}
