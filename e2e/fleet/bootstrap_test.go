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
// versions of Nix, and the user-data that narwharf bootstrap prints.
func TestBootstrap(t *testing.T) {
	onlyLong(t)
	fw := new(follower)
	fw.Fleet = New(t, Options{Hosts: 3})
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
		h := fw.Host("h1")
		join := joinToken(fw, "--host", "h1")
		script(fw, "h1", join)
		begin := time.Now()
		out := h.Exec("/root/user-data")
		s.Took("to the system of the channel (promised: 60 s)", time.Since(begin))
		if out.Code != 0 || !strings.Contains(out.Stderr, "done: ok") {
			s.Fatalf("%v", out)
		}
		converged(s, fw, "h1", a)
		if text := h.Sh("cat /nix/var/narwharf/token; ls -l /nix/var/narwharf/token; ls /nix/var/narwharf/bootstrap"); strings.Contains(text, join) ||
			!strings.Contains(text, "-rw-------") || strings.Contains(text, "join-token") || strings.Contains(text, "netrc") {
			s.Errorf("what it left:\n%s", text)
		}
		if text := out.String() + fw.Server().Log() + h.Journal("narwharf.service"); strings.Contains(text, join[15:]) {
			s.Errorf("the join token is in a log:\n%s", text)
		}
	})
	fw.story(t, "5: the same again changes nothing", func(s *Story, fw *follower) {
		h := fw.Host("h1")
		before := h.State()
		out := h.Exec("/root/user-data")
		if out.Code != 0 || !strings.Contains(out.Stderr, "there is nothing to do") {
			s.Errorf("%v", out)
		}
		if after := h.State(); after.Generation != before.Generation || after.Current != before.Current || after.AgentPID != before.AgentPID {
			s.Errorf("%+v, and was %+v", after, before)
		}
	})
	fw.story(t, "5: two at once, of one machine", func(s *Story, fw *follower) {
		h := fw.Host("h2")
		script(fw, "h2", joinToken(fw), "--action", "switch", "--host", "h2")
		one, two := h.Start("/root/user-data"), h.Start("/root/user-data")
		for _, job := range []*Job{one, two} {
			if out := job.Wait(3 * time.Minute); out.Code != 0 {
				s.Errorf("%v", out)
			}
		}
		converged(s, fw, "h2", a)
	})
	fw.story(t, "5: the server comes later, and a token is spent", func(s *Story, fw *follower) {
		h := fw.Host("h3")
		spent, good := joinToken(fw), joinToken(fw, "--host", "h3")
		script(fw, "h2", spent, "--host", "h9")
		script(fw, "h3", spent)
		h.Sh(`curl -fsS -X POST -H "Authorization: Bearer $1" -d '{"host":"h9","channel":"web","instance":"00000000000000000000000000000001"}' http://cache/api/v1/join > /dev/null`, spent)
		out := h.Exec("/root/user-data")
		if out.Code != 3 || !strings.Contains(out.Stderr, "was used by h9") {
			s.Errorf("%v", out)
		}
		fw.Server().Stop()
		script(fw, "h3", good)
		job := h.Start("/root/user-data")
		time.Sleep(3 * time.Second) // it asks, and nobody is there
		fw.Server().Start()
		if out := job.Wait(3 * time.Minute); out.Code != 0 || !strings.Contains(out.Stderr, "does not answer") {
			s.Errorf("%v", out)
		}
		converged(s, fw, "h3", a)
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
}
