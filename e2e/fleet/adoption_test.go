package fleet

import (
	"fmt"
	"strings"
	"testing"
)

// TestFirstAdoption is docs/migrating on a host that runs, and that nobody has followed yet: narwharf agent once
// --dry-run says what would come of it, and nothing on the host changes by that; then it follows.
func TestFirstAdoption(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	fw := new(follower)
	fw.Fleet = New(t, Options{Hosts: 1, Host: func(f *Fleet, _ string, h *HostOptions) {
		f.CI().Token(f.Server().Token("ci-promotes", "push", "promote:*", "operate"))
		fw.agent = f.CI().Agent()
		fw.config = agentConfig(f.CI().NewKey("deploy-1"), f.Key(ciKey))
		h.Files["var/lib/narwharf/token"] = f.Server().Token("hosts", "follow:web")
	}})
	const config = "/root/agent.toml"
	fw.Host("h1").WriteFile(config, fw.config, 0o600)
	fw.CI().Push(fw.agent)
	fw.Host("h1").Sh(`nix-store --realise "$1"; nix-store --add-root /root/agent --indirect --realise "$1"`, fw.agent)

	// dry is what it says; the host is the same after it.
	dry := func(s *Story, fw *follower, code int, words ...string) {
		s.Helper()
		h := fw.Host("h1")
		look := func() string {
			st := h.State()
			return fmt.Sprintf("%s %s %s %s %s %s", st.Current, st.Profile, st.BootEntry, st.Generation, st.BootID,
				h.Sh("ls -R /nix/var/nix/gcroots /nix/var/nix/profiles; ls /nix/store | wc -l; cat /nix/var/narwharf/journal* 2> /dev/null | sha256sum || true"))
		}
		before := look()
		out := h.Exec("/root/agent/bin/narwharf", "agent", "once", "--dry-run", "--config", config)
		if out.Code != code {
			s.Errorf("want exit %d: %v", code, out)
		}
		for _, w := range words {
			if !strings.Contains(out.Stdout+out.Stderr, w) {
				s.Errorf("it does not say %q: %v", w, out)
			}
		}
		if after := look(); after != before {
			s.Errorf("it changed something:\n%s\nand was\n%s", after, before)
		}
		if list := fw.CI().Narwharf("hosts", "web"); strings.Contains(list.Stdout, "h1 ") {
			s.Errorf("the server has a report of it:\n%s", list.Stdout)
		}
	}
	fw.story(t, "a host before it follows: there is no release yet", func(s *Story, fw *follower) {
		dry(s, fw, 0, "would do nothing")
	})
	fw.story(t, "a host before it follows: the release is what it runs", func(s *Story, fw *follower) {
		current := fw.Host("h1").State().Current
		fw.CI().Push(current)
		fw.promote(0, current)
		dry(s, fw, 0, "would change nothing: release 1 is what runs and boots")
	})
	fw.story(t, "a host before it follows: a release that is not here", func(s *Story, fw *follower) {
		a := fw.system("a")
		fw.promote(0, a)
		dry(s, fw, 0, "would go to release 2", "to        "+a, "fetches")
		fw.Host("h1").Sh(`nix-store --realise "$1"`, a)
		dry(s, fw, 0, "would go to release 2", "reboot    not needed")
	})
	fw.story(t, "a host before it follows: what is missing", func(s *Story, fw *follower) {
		h := fw.Host("h1")
		h.WriteFile(config, strings.Replace(fw.config, fw.Key(ciKey), "other-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=", 1), 0o600)
		dry(s, fw, 0, "would go to release 2") // what is here needs no signature: it has the bytes that the release says
		h.WriteFile(config, strings.Replace(fw.config, fw.Key("deploy-1"), "other-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=", 1), 0o600)
		dry(s, fw, 3, "rejected")
		h.WriteFile(config, strings.Replace(fw.config, "http://cache", "http://cache:82", 1), 0o600)
		dry(s, fw, 2, "does narwharf serve run there")
		h.WriteFile("/root/none", "nwt_none\n", 0o600)
		h.WriteFile(config, strings.Replace(fw.config, "/var/lib/narwharf/token", "/root/none", 1), 0o600)
		dry(s, fw, 2, "token")
		h.WriteFile(config, fw.config, 0o600)
	})
	fw.story(t, "a host that begins to follow", func(s *Story, fw *follower) {
		out := fw.Host("h1").Exec("/root/agent/bin/narwharf", "agent", "once", "--config", config)
		if out.Code != 0 || out.Line() != "ok" {
			s.Fatalf("%v", out)
		}
		fw.run(fw.Host("h1").State().Current, "a", "ok", "h1")
	})
}
