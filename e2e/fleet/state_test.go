package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"narwharf/e2e"
)

// TestStateOfHosts is what hosts are found in: a profile that people made something else of, a
// release that would leave them without an agent, a channel that went far while they were off.
// h1 has this build's agent, h2, whose root is tmpfs, that of the previous one.
func TestStateOfHosts(t *testing.T) {
	onlyLong(t)
	need(t)
	t.Parallel()
	bin := e2e.PreviousBin(t)
	previous := ""
	fw := follow(t, 2, func(toml string) string { return toml + "\n[poll]\nwait = \"5s\"\n" }, func(f *Fleet, name string, h *HostOptions) {
		forgetful("h2")(name, h)
		if name == "h2" {
			previous = f.CI().AgentOf(bin)
			h.System.Agent = previous
		}
	})
	const profile = "/nix/var/nix/profiles/system"
	systems := func(fw *follower, version string) (one, two string) {
		return fw.system(version), fw.system(version, by(previous))
	}
	// says waits until h1 reports a state with some words.
	says := func(fw *follower, state, words string) {
		fw.T.Helper()
		Eventually(fw.T, time.Minute, "h1 is "+state+": "+words, func() error {
			if r := fw.reported()["h1"]; r.Status.State != state || !strings.Contains(r.Status.Error, words) {
				return fmt.Errorf("%+v\n%s", r, tail(fw.Host("h1").Journal("narwharf.service"), 10))
			}
			return nil
		})
	}
	old, old2 := systems(fw, "first")
	fw.promote(0, "h1="+old, "h2="+old2)
	fw.story(t, "a release without the agent", func(s *Story, fw *follower) {
		h := fw.Host("h1")
		refuse := func(what, words string, change func(*System), flags ...string) {
			path := fw.system(what, change)
			out := fw.promote(3, append([]string{"h1=" + path, "h2=" + old2}, flags...)...)
			says(fw, "rejected", words)
			if st := h.State(); st.Current != old || st.Profile != old || st.BootEntry != old || !strings.Contains(out.Stdout+out.Stderr, "--last") {
				s.Errorf("%s: %+v\n%v", what, st, out)
			}
		}
		bare := func(sys *System) { sys.Agent, sys.AgentConfig = "", "" }
		refuse("bare", "it has no unit narwharf.service", bare)
		refuse("bare-boot", "it has no unit narwharf.service", bare, "--action", "boot")
		refuse("bare-kernel", "it has no unit narwharf.service", func(sys *System) { bare(sys); sys.Kernel = "6.2" })
		refuse("config-alone", "it has no unit narwharf.service", func(sys *System) { sys.Agent = "" })
		refuse("no-config", "agent.toml, which is not there", func(sys *System) { sys.AgentConfig = "" })
	})
	fw.story(t, "a profile that is no generation heals", func(s *Story, fw *follower) {
		h := fw.Host("h1")
		a, _ := systems(fw, "direct")
		fw.promote(0, "h1="+old, "h2="+old2)
		h.Must("ln", "-sfn", old, profile)
		says(fw, "ok", "not to one of its generations")
		fw.promote(0, "h1="+a, "h2="+old2)
		fw.run(a, "direct", "ok", "h1")
		says(fw, "ok", "")
		if link := h.Must("readlink", profile); !strings.HasPrefix(link, "system-") {
			s.Errorf("the profile is a link to %s", link)
		}
		h.Sh("rm " + profile[:strings.LastIndex(profile, "/")] + "/$(readlink " + profile + ")")
		says(fw, "drifted", "which is gone")
		old, old2 = systems(fw, "healed")
		fw.promote(0, "h1="+old, "h2="+old2)
		fw.run(old, "healed", "ok", "h1")
		says(fw, "ok", "")
	})
	fw.story(t, "hosts that were off for 1800 seqs", func(s *Story, fw *follower) {
		both := []string{"h1", "h2"}
		fw.EachOf(both, func(h *Host) error { h.PowerOff(); return nil })
		middle, middle2 := systems(fw, "middle")
		from := fw.seq()
		fw.send("h1="+middle, "h2="+middle2, "--seq", fmt.Sprint(from+900))
		last, last2 := systems(fw, "last")
		to := fw.send("h1="+last, "h2="+last2, "--seq", fmt.Sprint(from+1800))
		begin := time.Now()
		fw.EachOf(both, func(h *Host) error { h.Boot(); return nil })
		Eventually(s, 90*time.Second, "both come along", func() error {
			for name, r := range fw.reported() {
				if !r.Converged || r.Status.Seq != to {
					return fmt.Errorf("%s is %+v", name, r)
				}
			}
			return nil
		})
		s.Took("boot to confirmed", time.Since(begin))
		fw.run(last, "last", "ok", "h1")
		fw.run(last2, "last", "ok", "h2")
		for _, h := range fw.Hosts() {
			if journal := h.Journal("nixos-rebuild-switch-to-configuration.service"); strings.Contains(journal, middle) || strings.Contains(journal, middle2) {
				s.Errorf("%s switched to what was in between", h.Name())
			}
		}
		old2 = last2
	})
	const returns = "\n[drift]\naction = \"return\"\ngrace = \"3s\"\n"
	// with adds lines to a host's agent.toml, and the specialisation x.
	with := func(fw *follower, config string) func(*System) {
		return func(sys *System) {
			sys.AgentConfig += config
			x := *sys
			x.Version += "-x"
			sys.Specialisations = map[string]System{"x": x}
		}
	}
	runs := func(fw *follower, current, profile, hello string) {
		fw.T.Helper()
		if st := fw.Host("h1").State(); st.Current != current || st.Profile != profile || st.Hello != hello {
			fw.T.Errorf("%+v", st)
		}
	}
	fw.story(t, "a specialisation of the system is the system", func(s *Story, fw *follower) {
		h := fw.Host("h1")
		a := fw.system("special", with(fw, ""))
		fw.promote(0, "h1="+a, "h2="+old2)
		x := h.Must("readlink", "-f", a+"/specialisation/x")
		if out := h.Switch(x, "test"); out.Code != 0 {
			s.Fatalf("%v", out)
		}
		time.Sleep(10 * time.Second) // two polls
		says(fw, "ok", "")
		runs(fw, x, a, "special-x")
		bad := fw.system("special-bad", misbehave(ActivationFails))
		fw.promote(3, "h1="+bad, "h2="+old2)
		runs(fw, x, a, "special-x")
		// Chosen in the boot menu.
		h.Sh(`sed -i "s#init=[^ ]*#init=$1/init#" /boot/loader/entries/$(sed -n 's/^default *//p' /boot/loader/loader.conf)`, x)
		fw.reboot("h1")
		runs(fw, x, a, "special-x")
		fw.promote(0, "h1="+a, "h2="+old2)
		says(fw, "ok", "")
		if r := fw.reported()["h1"]; !r.Converged || r.Status.Current != a {
			s.Errorf("%+v", r)
		}
		asks := fw.system("asks", with(fw, "\n[activation]\nspecialisation = \"x\"\n"))
		fw.promote(0, "h1="+asks, "h2="+old2)
		runs(fw, asks, asks, "asks")
		agentRestarted(fw, "h1")
		b := fw.system("asked", with(fw, returns))
		fw.promote(0, "h1="+b, "h2="+old2)
		runs(fw, h.Must("readlink", "-f", b+"/specialisation/x"), b, "asked-x")
		old = b
	})
	fw.story(t, "a drifted host goes back where that is wished", func(s *Story, fw *follower) {
		h := fw.Host("h1")
		agentRestarted(fw, "h1")
		other := fw.system("by-hand", with(fw, returns))
		h.Realise(other)
		if out := h.Switch(other, "test"); out.Code != 0 {
			s.Fatalf("%v", out)
		}
		begin := time.Now()
		Eventually(s, time.Minute, "h1 is back", func() error {
			if st := h.State(); st.Current != old || st.Profile != old || st.Hello != "asked" {
				return fmt.Errorf("%+v\n%s", st, tail(h.Journal("narwharf.service"), 10))
			}
			return nil
		})
		s.Took("back", time.Since(begin))
		says(fw, "ok", "")
	})
	fw.story(t, "a release that is meant to be the last", func(s *Story, fw *follower) {
		h := fw.Host("h1")
		path := fw.system("end", func(sys *System) { sys.Agent, sys.AgentConfig = "", "" })
		fw.promote(0, "h1="+path, "h2="+old2, "--last")
		if st := h.State(); st.Current != path || st.Profile != path || st.BootEntry != path {
			s.Errorf("%+v", st)
		}
	})
}

// agentRestarted waits until the agent of a host runs with the configuration that lies there.
func agentRestarted(fw *follower, host string) {
	fw.T.Helper()
	h := fw.Host(host)
	Eventually(fw.T, 30*time.Second, "the agent of "+host+" is a new one", func() error {
		if out := h.Exec("/bin/sh", "-c", `[ "$(date -d "$(systemctl show narwharf.service --property=ExecMainStartTimestamp --value)" +%s)" -gt "$(stat -c %Y /run/current-system)" ]`); out.Code != 0 {
			return fmt.Errorf("%v", out)
		}
		return nil
	})
}
