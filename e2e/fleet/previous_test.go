package fleet

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"narwharf/e2e"
)

// TestPrevious is what happens while a fleet is upgraded: h1 has the agent of the previous build, h2
// this one's, and then the server, too, and the agents change places. The root of h2 is tmpfs.
func TestPrevious(t *testing.T) {
	onlyLong(t)
	need(t)
	t.Parallel()
	bin := e2e.PreviousBin(t)
	this, previous := "", "" // store paths of the agents
	fw := follow(t, 2, func(toml string) string { return toml }, func(f *Fleet, name string, h *HostOptions) {
		forgetful("h2")(name, h)
		if name == "h1" {
			previous = f.CI().AgentOf(bin)
			h.System.Agent = previous
		}
	})
	this = fw.agent
	versions := map[string]string{this: "", previous: ""}
	for agent := range versions {
		versions[agent] = strings.TrimPrefix(fw.CI().Must(agent+"/bin/narwharf", "version"), "narwharf ")
	}
	if versions[this] == versions[previous] {
		t.Fatalf("both builds are %s", versions[this])
	}
	old := map[string]string{}                              // what a host runs
	agents := map[string]string{"h1": previous, "h2": this} // and which agent
	// release promotes a version, which is good with exit code 0 and else reverted, with agents for each.
	release := func(fw *follower, code int, version string, more ...func(*System)) {
		fw.T.Helper()
		paths := map[string]string{}
		for h, agent := range agents {
			paths[h] = fw.system(version, append([]func(*System){by(agent)}, more...)...)
		}
		fw.promote(code, "h1="+paths["h1"], "h2="+paths["h2"])
		for h := range agents {
			if code == 0 {
				old[h] = paths[h]
				fw.run(old[h], version, "ok", h)
			} else {
				fw.run(old[h], fw.Host(h).Must("cat", old[h]+"/nixos-version"), "reverted", h)
			}
			agentIs(fw, h, versions[agents[h]])
		}
	}
	fw.story(t, "5: the previous agent under this server", func(s *Story, fw *follower) {
		release(fw, 0, "a")
		release(fw, 3, "a-bad", misbehave(ActivationFails))
		release(fw, 3, "a-sick", misbehave(Unhealthy))
	})
	fw.story(t, "5: this agent under the previous server", func(s *Story, fw *follower) {
		server := fw.Server()
		server.Stop()
		server.Sh("cp /usr/local/bin/narwharf /root/this")
		server.Use(bin)
		server.Start()
		release(fw, 0, "b")
		release(fw, 3, "b-bad", misbehave(ActivationFails))
		server.Stop()
		server.Sh("mv /root/this /usr/local/bin/narwharf")
		server.Start()
		release(fw, 0, "b2")
	})
	fw.story(t, "5: a release changes the agents", func(s *Story, fw *follower) {
		agents["h1"], agents["h2"] = this, previous
		release(fw, 0, "c")
		release(fw, 3, "c-bad", misbehave(ActivationFails))
		release(fw, 0, "c2")
	})
	fw.story(t, "5: the agents change in the middle of probation", func(s *Story, fw *follower) {
		agents["h1"], agents["h2"] = previous, this
		h1, h2 := fw.system("d", by(previous)), fw.system("d", by(this))
		seq := fw.send("h1="+h1, "h2="+h2)
		fw.each(func(h *Host) error {
			if _, err := h.await(time.Minute, seq, "probation"); err != nil {
				return err
			}
			out := h.Exec("systemctl", "kill", "--kill-who=main", "--signal=KILL", "narwharf.service")
			j, err := h.agentJournal()
			if err != nil || out.Code != 0 {
				return fmt.Errorf("%w: %v", err, out)
			}
			h.T.Logf("%s: killed in %s (%s)", h.Name(), j.State, j.Attempt.Phase)
			path := map[string]string{"h1": h1, "h2": h2}[h.Name()]
			state, err := fw.truthful(h, seq, old[h.Name()], path)
			if err == nil && state != "ok" {
				err = fmt.Errorf("%s is %s\n%s", h.Name(), state, tail(h.Journal("narwharf.service"), 30))
			}
			return err
		})
		old["h1"], old["h2"] = h1, h2
		for h, agent := range agents {
			agentIs(fw, h, versions[agent])
		}
		release(fw, 0, "d2")
	})
	fw.story(t, "5: the previous agent meets a journal of a later one", func(s *Story, fw *follower) {
		const file = "/nix/var/narwharf/journal.json"
		h := fw.Host("h1")
		before := h.State()
		h.Must("systemctl", "stop", "narwharf.service")
		text := h.ReadFile(file)
		newer := strings.Replace(text, `{"version":1,`, `{"version":99,`, 1)
		h.WriteFile(file, newer, 0o600)
		h.Must("systemctl", "start", "narwharf.service")
		bad := fw.system("e", by(previous))
		seq := fw.send("h1="+bad, "h2="+bad)
		if _, err := fw.Host("h2").await(time.Minute, seq, "ok"); err != nil {
			s.Error(err)
		}
		Eventually(s, time.Minute, "h1 says why it does nothing", func() error {
			if r := fw.reported()["h1"]; r.Status.State != "failed" || !strings.Contains(r.Status.Error, "a newer narwharf wrote the journal") {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		if st := h.State(); st.Current != before.Current || st.Profile != before.Profile || st.BootEntry != before.BootEntry || h.ReadFile(file) != newer {
			s.Errorf("it touched something: %+v", st)
		}
		h.Must("systemctl", "stop", "narwharf.service")
		h.WriteFile(file, text, 0o600)
		h.Must("systemctl", "start", "narwharf.service")
		if state, err := fw.truthful(h, seq, before.Current, bad); err != nil || state != "ok" {
			s.Errorf("with its own journal it is %s: %v", state, err)
		}
		old["h1"], old["h2"] = bad, bad
	})
	fw.story(t, "5: a reboot into a system with the previous agent", func(s *Story, fw *follower) {
		// That it is h2, and no other machine, is told by a token that is of h2 alone (docs/hosts.md), which
		// a boot must not forget.
		h := fw.Host("h2")
		const token = "/nix/persist/narwharf.token"
		fw.config = strings.Replace(fw.config, "/var/lib/narwharf/token", token, 1)
		h.WriteFile(token, fw.Server().Must("narwharf", "token", "new", "--config", configFile,
			"--name", "h2", "--scope", "follow:web", "--scope", "pull", "--host", "h2"), 0o600)
		h1 := fw.system("f", by(previous), func(s *System) { s.AgentConfig = strings.Replace(fw.config, token, "/var/lib/narwharf/token", 1) })
		from := fw.system("f", by(this), func(s *System) {
			s.AgentConfig = fw.config + "\n[poll]\nwait = \"10s\"\n\n[reboot]\nallow = \"always\"\n"
		})
		fw.promote(0, "h1="+h1, "h2="+from)
		agentIs(fw, "h2", versions[this])
		boots := h.Boots()
		to := fw.system("g", by(previous), func(s *System) { s.Kernel = "6.2" })
		seq := fw.send("h1="+h1, "h2="+to, "--action", "reboot")
		if j, err := h.await(time.Minute, seq, "armed"); err != nil {
			s.Fatalf("%+v, %v", j, err)
		}
		h.AwaitBoot(boots + 1)
		Eventually(s, time.Minute, "h2 is well on the other kernel", func() error {
			if r := fw.reported()["h2"]; r.Status.State != "ok" || r.Status.Current != to || r.Status.Seq != seq {
				return fmt.Errorf("%+v\n%s", r, tail(h.Journal("narwharf.service"), 20))
			}
			return nil
		})
		agentIs(fw, "h2", versions[previous])
		fw.run(to, "g", "ok", "h2")
		last := fw.system("g2", by(this), func(s *System) { s.Kernel = "6.2" })
		fw.promote(0, "h1="+h1, "h2="+last)
		fw.run(last, "g2", "ok", "h2")
		agentIs(fw, "h2", versions[this])
	})
}

// by gives a system an agent.
func by(agent string) func(*System) { return func(s *System) { s.Agent = agent } }

// agentIs waits until a host's reports are of an agent's version: after a release that changes it the
// agent restarts itself.
func agentIs(fw *follower, host, version string) {
	fw.T.Helper()
	Eventually(fw.T, 30*time.Second, "the agent of "+host+" is "+version, func() error {
		var list []struct {
			Host   string
			Status struct{ Agent string }
		}
		out := fw.CI().Narwharf("hosts", "web", "--json")
		if err := json.Unmarshal([]byte(out.Stdout), &list); err != nil {
			return fmt.Errorf("%w: %v", err, out)
		}
		for _, h := range list {
			if h.Host == host && h.Status.Agent == version {
				return nil
			}
		}
		return fmt.Errorf("%+v", list)
	})
}
