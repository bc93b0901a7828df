package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// firstAgentConfig is agent.toml of a system that comes to a host which joined:
// it names no token, since the host has its own by then.
func firstAgentConfig(promoter, content string) string {
	return strings.Replace(agentConfig(promoter, content), "token_file = \"/var/lib/narwharf/token\"\n", "", 1)
}

// TestBootstrap is a first boot from nothing: hosts without any agent, of two
// versions of Nix, and the user-data that narwharf bootstrap prints. Each story
// is of two hosts: h1, h3, h5 with the root on a disk, h2, h4, h6 with one of tmpfs.
func TestBootstrap(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	fw := new(follower)
	fw.Fleet = New(t, Options{Hosts: 6, Host: func(_ *Fleet, name string, h *HostOptions) {
		forgetful("h2", "h4", "h6")(name, h)
		if name == "h5" {
			h.Suite = newNix
		}
	}})
	fw.agent = fw.CI().Agent()
	fw.config = firstAgentConfig(fw.CI().NewKey("deploy-1"), fw.Key("ci-1"))
	fw.CI().Token(fw.Server().Token("ci-promotes", "push", "promote:*", "operate"))
	fw.CI().Push(fw.agent)
	a := fw.system("a")
	fw.promote(0, a)

	joinToken := func(fw *follower, args ...string) string {
		fw.T.Helper()
		out := fw.Server().Narwharf(append([]string{"token", "new", "--config", configFile, "--join", "web"}, args...)...)
		if out.Code != 0 {
			fw.T.Fatalf("%v", out)
		}
		return out.Line()
	}
	// script is the user-data of a host, put there as its cloud would.
	script := func(fw *follower, host, join string, args ...string) {
		fw.T.Helper()
		fw.CI().WriteFile("/root/join", join+"\n", 0o600)
		out := fw.CI().Narwharf(append([]string{"bootstrap", "web", "--server", "http://cache", "--key", fw.Key("deploy-1"), "--content-key", fw.Key("ci-1"),
			"--min-seq", "1", "--agent", fw.agent, "--join-token-file", "/root/join"}, args...)...)
		if out.Code != 0 {
			fw.T.Fatalf("%v", out)
		}
		fw.Host(host).WriteFile("/root/user-data", out.Stdout, 0o700)
	}
	converged := func(s *Story, fw *follower, host, path string) {
		s.Helper()
		h := fw.Host(host)
		Eventually(s, 60*time.Second, host+" runs what the channel says, by its own agent", func() error {
			if r := fw.reported()[host]; !r.Converged || h.State().Agent != "active" {
				return fmt.Errorf("%+v\n%s", r, tail(h.Journal("narwharf.service"), 10))
			}
			return nil
		})
		if st := h.State(); st.Current != path || st.Profile != path || st.BootEntry != path {
			s.Errorf("%s: %+v", host, st)
		}
	}

	fw.story(t, "5: a first boot by user-data", func(s *Story, fw *follower) {
		joins := map[string]string{}
		for _, name := range []string{"h1", "h2"} {
			joins[name] = joinToken(fw, "--host", name)
			script(fw, name, joins[name])
		}
		fw.EachOf([]string{"h1", "h2"}, func(h *Host) error {
			join := joins[h.Name()]
			begin := time.Now()
			out := h.Exec("/root/user-data")
			s.Took("to the system of the channel (promised: 60 s)", time.Since(begin))
			if out.Code != 0 || !strings.Contains(out.Stderr, "done: ok") {
				return fmt.Errorf("%v", out)
			}
			converged(s, fw, h.Name(), a)
			if text := h.Sh("cat /nix/var/narwharf/token; ls -l /nix/var/narwharf/token; ls /nix/var/narwharf/bootstrap"); strings.Contains(text, join) ||
				!strings.Contains(text, "-rw-------") || strings.Contains(text, "join-token") || strings.Contains(text, "netrc") {
				return fmt.Errorf("what it left:\n%s", text)
			}
			if text := out.String() + fw.Server().Log() + h.Journal("narwharf.service"); strings.Contains(text, join[15:]) {
				return fmt.Errorf("the join token is in a log:\n%s", text)
			}
			return nil
		})
	})
	fw.story(t, "5: the same again, after a boot, changes nothing", func(s *Story, fw *follower) {
		// A cloud-init that a boot made forget its first run does it again.
		fw.reboot("h1", "h2")
		fw.run(a, "a", "ok", "h1", "h2")
		for _, name := range []string{"h1", "h2"} {
			script(fw, name, joinToken(fw, "--host", name))
		}
		fw.EachOf([]string{"h1", "h2"}, func(h *Host) error {
			token, before := h.ReadFile("/nix/var/narwharf/token"), h.State()
			out := h.Exec("/root/user-data")
			if out.Code != 0 || !strings.Contains(out.Stderr, "there is nothing to do") {
				return fmt.Errorf("%v", out)
			}
			if after := h.State(); after.Generation != before.Generation || after.Current != before.Current || after.AgentPID != before.AgentPID {
				return fmt.Errorf("%+v, and was %+v", after, before)
			}
			if h.ReadFile("/nix/var/narwharf/token") != token {
				return fmt.Errorf("%s has another token", h.Name())
			}
			return nil
		})
	})
	fw.story(t, "5: two at once, of one machine", func(s *Story, fw *follower) {
		for _, name := range []string{"h3", "h4"} {
			script(fw, name, joinToken(fw), "--action", "switch", "--host", name)
		}
		fw.EachOf([]string{"h3", "h4"}, func(h *Host) error {
			one, two := h.Start("/root/user-data"), h.Start("/root/user-data")
			for _, job := range []*Job{one, two} {
				if out := job.Wait(3 * time.Minute); out.Code != 0 {
					return fmt.Errorf("%v", out)
				}
			}
			converged(s, fw, h.Name(), a)
			return nil
		})
	})
	fw.story(t, "5: the server comes later, and a token is spent", func(s *Story, fw *follower) {
		last := []string{"h5", "h6"}
		spent, good := joinToken(fw), map[string]string{}
		for _, name := range last {
			good[name] = joinToken(fw, "--host", name)
			script(fw, name, spent)
		}
		fw.Host("h5").Sh(`curl -fsS -X POST -H "Authorization: Bearer $1" -d '{"host":"h9","channel":"web","instance":"00000000000000000000000000000001"}' http://cache/api/v1/join > /dev/null`, spent)
		fw.EachOf(last, func(h *Host) error {
			if out := h.Exec("/root/user-data"); out.Code != 3 || !strings.Contains(out.Stderr, "was used by h9") {
				return fmt.Errorf("%v", out)
			}
			return nil
		})
		fw.Server().Stop()
		var jobs []*Job
		for _, name := range last {
			script(fw, name, good[name])
			jobs = append(jobs, fw.Host(name).Start("/root/user-data"))
		}
		time.Sleep(3 * time.Second) // they ask, and nobody is there
		fw.Server().Start()
		for i, name := range last {
			if out := jobs[i].Wait(3 * time.Minute); out.Code != 0 || !strings.Contains(out.Stderr, "does not answer") {
				s.Errorf("%v", out)
			}
			converged(s, fw, name, a)
		}
	})
	fw.story(t, "5: and they follow the channel from then on", func(s *Story, fw *follower) {
		b := fw.system("b")
		begin := time.Now()
		fw.promote(0, b)
		s.Took("promote to last confirmed", time.Since(begin))
		for _, h := range fw.Hosts() {
			converged(s, fw, h.Name(), b)
		}
	})
	fw.story(t, "13: no token is got that the next boot would forget", func(s *Story, fw *follower) {
		const config = "/nix/other/agent.toml"
		h := fw.Host("h2")
		join := joinToken(fw, "--host", "other") + "\n"
		h.WriteFile("/nix/other/join", join, 0o600)
		h.WriteFile(config, "host = \"other\"\nstate_dir = \"/nix/other\"\ntoken_file = \"/run/narwharf/token\"\njoin_token_file = \"/nix/other/join\"\n"+fw.config, 0o600)
		out := h.Exec("narwharf", "agent", "once", "--dry-run", "--config", config)
		if out.Code == 0 || !strings.Contains(out.Stderr, "token_file /run/narwharf/token lies in memory") || h.ReadFile("/nix/other/join") != join {
			s.Errorf("%v", out)
		}
		// The join token is not spent: it does where the token is kept.
		h.Sh("sed -i /^token_file/d " + config)
		if out := h.Exec("narwharf", "agent", "once", "--dry-run", "--config", config); !strings.Contains(out.Stderr, "joined") {
			s.Errorf("%v", out)
		}
	})
}
