package fleet

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	proxyPort     = 3128
	proxyPassword = "pr0xy-s3cret"
	bulk          = 4 << 10 // KiB of a download
	capped        = 1 << 20 // bytes a second
)

// TestProxy: h1 and h2 reach nothing of the server but through a proxy with a password, and have no
// name for it themselves; h3 has its name from a DNS server alone. Nix is 2.8 on h1, whose root is
// forgotten at every boot, and 2.34 on the others.
func TestProxy(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	n := new(narrow)
	n.follower = follow(t, 3, func(toml string) string { return toml }, n.host)
	all := []string{"h1", "h2", "h3"}
	h1, h2, h3 := n.addresses["h1"], n.addresses["h2"], n.addresses["h3"]

	n.tell(t, "5.6: an HTTPS proxy, a private CA behind it, and no other way", func(s *Story, n *narrow) {
		for _, name := range all[:2] {
			if to := n.Host(name).Reach("cache:80"); to != "nobody" {
				s.Errorf("%s reaches the server by itself: %s", name, to)
			}
		}
		n.extra = "\n[download]\njitter = \"3s\"\n"
		n.bulk = 512
		n.ok(n.promoteTo("behind"), all...)
		n.through(s, h1, h2)
	})

	n.tell(t, "5.6: the other Nix fetches; downloads wait for their turn", func(s *Story, n *narrow) {
		n.swap, n.extra = true, ""
		n.ok(n.promoteTo("swapped"), all...)
		seen := n.through(s, h1, h2)
		for _, name := range all {
			at, waited := n.turn(s, name)
			s.Note("%s waited %v", name, waited)
			if waited < 0 || waited > 3*time.Second {
				s.Errorf("%s waits %v, and 3 s are the most", name, waited)
			}
			for _, c := range seen {
				if c.nix && c.host == n.addresses[name] && c.at.Before(at.Add(waited-10*time.Millisecond)) {
					s.Errorf("%s downloads at %v, and its turn is %v after %v", name, c.at, waited, at)
				}
			}
		}
	})

	n.tell(t, "5.6: the proxy goes in the middle of downloads; DNS fails", func(s *Story, n *narrow) {
		n.bulk, n.extra = bulk, fmt.Sprintf("\n[download]\nrate = \"%dK\"\n", capped>>10)
		n.dns.answer(servFail)
		n.Server().Restart() // nobody has a connection any more
		before := n.Host("h3").State()
		n.proxy.hold(1 << 20)
		n.dns.asked(h3)
		began := time.Now()
		seq := n.promoteTo("cut")
		Eventually(s, time.Minute, "both are in the middle of their downloads", func() error { return n.proxy.holds(h1, h2) })
		Eventually(s, time.Minute, "the operator sees them", func() error {
			r := n.reported()
			for _, name := range all[:2] {
				if r[name].Status.State != "staging" || r[name].Status.Seq != seq {
					return fmt.Errorf("%s: %+v", name, r[name])
				}
			}
			return nil
		})
		n.proxy.goAway()
		n.Host("h1").PowerCut()
		n.Host("h1").Boot()
		for _, name := range all[:2] {
			j, err := n.Host(name).await(90*time.Second, seq, "stage_failed")
			if err != nil || !strings.Contains(j.Error, "unable to download") && !strings.Contains(j.Error, "proxyconnect") {
				s.Errorf("%v: %+v", err, j)
			}
		}
		n.says(s, "h1", "not reached", "proxy")
		n.says(s, "h2", "not reached", "proxy")
		n.says(s, "h3", "not reached", "depot.example")
		// Polls come after 1, 2, 4, … seconds, and reports of nothing new do not; each asks for two kinds of address.
		if asked, most := n.dns.asked(h3), 40+2*int(time.Since(began).Seconds()); asked == 0 || asked > most {
			s.Errorf("h3 asked %d times for the name within %v", asked, time.Since(began))
		} else {
			s.Note("h3 asked %d times in %.0f s", asked, time.Since(began).Seconds())
		}
		if now := n.Host("h3").State(); now.Current != before.Current || now.Hello != before.Hello || now.Running != "running" {
			s.Errorf("without DNS h3 was %+v and is %+v", before, now)
		}
		n.proxy.comeBack(s, proxyPort)
		n.dns.answer(noError)
		begin := time.Now()
		n.ok(seq, all...)
		s.Took("all there again to confirmed", time.Since(begin))
		if out := n.Host("h2").Must("narwharf", "agent", "status"); strings.Contains(out, "not reached") {
			s.Errorf("%s", out)
		}
		n.through(s, h1, h2)
	})

	n.tell(t, "5.6: a bandwidth cap; a switch after which DNS fails, or the proxy has another password", func(s *Story, n *narrow) {
		n.cutOff = true
		seq := n.promoteTo("capped")
		for _, name := range all[1:] {
			j, err := n.Host(name).await(90*time.Second, seq, settled...)
			if err != nil || j.State != "ok" || j.Attempt == nil || !j.Attempt.Unconfirmed {
				s.Errorf("%s, with its gateway and nothing else: %v: %+v", name, err, j)
			}
			if st := n.Host(name).State(); st.Current != n.versions[name] || st.BootEntry != n.versions[name] {
				s.Errorf("%s: %+v", name, st)
			}
		}
		n.says(s, "h2", "not reached", "Proxy Authentication Required")
		// What people do about it.
		n.Host("h3").WriteFile("/etc/resolv.conf", n.resolvers(), 0o644)
		n.Host("h2").Sh("cp /etc/proxy-token.env /etc/proxy-token-2.env; systemctl restart narwharf.service")
		n.ok(seq, all...)
		for _, name := range all {
			if r := n.reported()[name]; r.Status.Unconfirmed != (name != "h1") {
				s.Errorf("the server is told of %s: %+v", name, r)
			}
		}
		// The agent fetches for Nix then.
		_, refused, bytes := n.proxy.look()
		if len(refused) == 0 || bytes[h1] < bulk<<10 || bytes[h2] < bulk<<10 {
			s.Errorf("through the proxy came %d bytes to h1 and %d to h2; it refused %q", bytes[h1], bytes[h2], refused)
		}
		for _, name := range all {
			took, least := n.staged(s, name), time.Second*(bulk<<10)/capped
			s.Note("%s: %d KiB at %d KiB/s in %.2f s", name, bulk, capped>>10, took.Seconds())
			if took < least {
				s.Errorf("%s had %d KiB within %v, which the cap makes %v at least", name, bulk, took, least)
			}
		}
	})

	n.tell(t, "5.6: nobody is told the proxy's password", func(s *Story, n *narrow) {
		texts := map[string]string{"hosts": n.CI().Narwharf("hosts", "web", "--json").Stdout, "events": n.events(), "the server's log": n.Server().Log()}
		for _, name := range all[:2] {
			h := n.Host(name)
			texts[name+"'s journal"] = h.h.log()
			texts[name+"'s status"] = h.Must("narwharf", "agent", "status") + h.Must("narwharf", "agent", "status", "--json")
			texts[name+"'s state"] = h.Sh(`grep -rl "$1" /nix/var/narwharf /nix/var/log || true`, proxyPassword)
			if texts[name+"'s state"] != "" {
				s.Errorf("%s has the password in %s", name, texts[name+"'s state"])
			}
		}
		for what, text := range texts {
			if text == "" && !strings.HasSuffix(what, "state") {
				s.Errorf("%s: no text", what)
			}
			if strings.Contains(text, proxyPassword) {
				s.Errorf("%s holds the proxy's password", what)
			}
		}
	})
}

// A narrow is a follower whose hosts are behind a proxy, or have a name server that fails.
type narrow struct {
	*follower
	*narrowState
}

type narrowState struct {
	proxy     *tunnel
	dns       *resolver
	authority string
	versions  map[string]string // what each host was sent last

	// What the next systems are like.
	extra string // more of agent.toml
	bulk  int
	swap  bool // Nix by itself where it was by nix-daemon, and the other way round
	// Once it is switched, h2 has a wrong password for the proxy and h3 no name server.
	cutOff bool
}

func (n *narrow) tell(t *testing.T, name string, tell func(s *Story, n *narrow)) {
	t.Helper()
	n.story(t, name, func(s *Story, fw *follower) { tell(s, &narrow{fw, n.narrowState}) })
}

// host is what is special about a host.
func (n *narrow) host(f *Fleet, name string, h *HostOptions) {
	if n.narrowState == nil {
		n.narrowState = &narrowState{versions: map[string]string{}}
		n.authority = serveTLS(f, "depot.internal")
		n.proxy = newTunnel(f.CI().Machine, proxyPort, "fleet:"+proxyPassword, "depot.internal", serverAddress+":443")
		n.dns = newResolver(f.CI().Machine, "depot.example", serverAddress)
	}
	n.change(name)(h.System)
	if name == "h3" {
		h.Files["etc/resolv.conf"] = n.resolvers()
		return
	}
	h.Suite, h.TmpfsRoot = "bookworm", true
	if name == "h2" {
		h.Suite, h.TmpfsRoot = newNix, false
	}
	proxy := fmt.Sprintf("http://fleet:%s@%s", proxyPassword, n.proxy.address)
	h.Files["etc/proxy-token.env"] = "HTTPS_PROXY=" + proxy + "\nhttps_proxy=" + proxy + "\n"
	h.Files["etc/proxy-token-2.env"] = strings.ReplaceAll(h.Files["etc/proxy-token.env"], ":"+proxyPassword, ":not-"+proxyPassword)
	h.Files["etc/systemd/system/nix-daemon.service.d/proxy.conf"] =
		"[Service]\nEnvironmentFile=/etc/proxy-token.env\nEnvironment=NIX_SSL_CERT_FILE=/etc/narwharf/ca.pem\n"
}

func (n *narrow) resolvers() string {
	return "nameserver " + ciAddress + "\noptions timeout:1 attempts:1\n"
}

// change makes a system one of that host.
func (n *narrow) change(name string) func(*System) {
	return func(s *System) {
		server := "https://depot.internal"
		if name == "h3" {
			server = "http://depot.example"
		}
		s.AgentConfig = strings.Replace(s.AgentConfig, "http://cache", server, 1) + n.extra
		s.Bulk = n.bulk
		if name == "h3" {
			if n.cutOff {
				s.Snippet = `[ "$NIXOS_ACTION" != test ] || printf 'nameserver 10.77.0.99\noptions timeout:1 attempts:1\n' > /etc/resolv.conf`
			}
			return
		}
		s.AgentConfig = "ca_file = \"/etc/narwharf/ca.pem\"\n" + s.AgentConfig
		s.Etc = map[string]string{"narwharf/ca.pem": n.authority}
		s.AgentService = "EnvironmentFile=/etc/proxy-token.env\n"
		if n.cutOff && name == "h2" {
			s.AgentService = "EnvironmentFile=/etc/proxy-token-2.env\n"
		}
		if (name == "h1") != n.swap {
			s.AgentService += "Environment=NIX_REMOTE=\n" // as on NixOS: root's Nix needs no daemon
		}
		s.Units = map[string]string{"wall.service": "[Unit]\nDescription=No way to the server\nAfter=network.service\nBefore=narwharf.service\n" +
			"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'ip route replace blackhole " + serverAddress + "'\n"}
	}
}

// promoteTo sends every host its own system of a version.
func (n *narrow) promoteTo(version string) int64 {
	n.T.Helper()
	var systems []System
	for _, name := range n.names {
		s := System{Version: version, Agent: n.agent, AgentConfig: n.config}
		n.change(name)(&s)
		systems = append(systems, s)
	}
	paths := n.CI().BuildSystems(systems...)
	n.CI().Push(paths...)
	var entries []string
	for i, name := range n.names {
		n.versions[name] = paths[i]
		entries = append(entries, name+"="+paths[i])
	}
	return n.send(entries...)
}

// ok waits until hosts are confirmed, and checks them.
func (n *narrow) ok(seq int64, names ...string) {
	n.T.Helper()
	Eventually(n.T, 2*time.Minute, strings.Join(names, " ")+" confirmed", func() error {
		reported := n.reported()
		for _, name := range names {
			if r := reported[name]; r.Status.State != "ok" || r.Status.Seq != seq || r.Status.Current != n.versions[name] {
				return fmt.Errorf("%s: %+v\n%s", name, r, tail(n.Host(name).Journal("narwharf.service"), 8))
			}
		}
		return nil
	})
	for _, name := range names {
		if st := n.Host(name).State(); st.Current != n.versions[name] || st.Profile != st.Current || st.BootEntry != st.Current {
			n.T.Errorf("%s: %+v", name, st)
		}
	}
}

// through checks that all of these clients went through the proxy since the last time, the agent and
// Nix, with all that was downloaded.
func (n *narrow) through(s *Story, clients ...string) []tunnelled {
	s.Helper()
	seen, refused, bytes := n.proxy.look()
	if len(refused) > 0 {
		s.Errorf("the proxy refused %q", refused)
	}
	for _, client := range clients {
		agent, nix := of(seen, client)
		s.Note("%s: %d + %d CONNECTs, %d KiB", client, agent, nix, bytes[client]>>10)
		if agent == 0 || nix == 0 || bytes[client] < int64(n.bulk)<<10 {
			s.Errorf("of %s the proxy saw the agent %d times, Nix %d times, and %d bytes", client, agent, nix, bytes[client])
		}
	}
	return seen
}

// says waits until a host's status tells of a server that is not there, and why.
func (n *narrow) says(s *Story, name string, words ...string) {
	s.Helper()
	Eventually(s, time.Minute, name+" says that it does not reach the server", func() error {
		out := n.Host(name).Must("narwharf", "agent", "status")
		for _, w := range words {
			if !strings.Contains(out, w) {
				return fmt.Errorf("nothing of %q: %s", w, out)
			}
		}
		return nil
	})
}

var turn = regexp.MustCompile(`(?m)^(\d+)\.(\d+) .*the download waits for its turn.* for=(\S+)`)

// turn is when a host's agent said how long its download waits.
func (n *narrow) turn(s *Story, name string) (at time.Time, waits time.Duration) {
	s.Helper()
	log := n.Host(name).Must("journalctl", "--no-pager", "--output=short-unix", "--unit=narwharf.service")
	found := turn.FindAllStringSubmatch(log, -1)
	if len(found) != 1 {
		s.Fatalf("%s speaks %d times of a wait\n%s", name, len(found), tail(log, 30))
	}
	seconds, err1 := strconv.ParseInt(found[0][1], 10, 64)
	micros, err2 := strconv.ParseInt(found[0][2], 10, 64)
	waits, err := time.ParseDuration(found[0][3])
	if err1 != nil || err2 != nil || err != nil {
		s.Fatalf("%q", found[0])
	}
	return time.Unix(seconds, micros*1000), waits
}

// staged is how long a host says that its last download took.
func (n *narrow) staged(s *Story, name string) time.Duration {
	s.Helper()
	out := n.CI().Narwharf("hosts", "web", "--json")
	var list []struct {
		Host   string
		Status struct {
			Durations map[string]int64 `json:"durations_ms"`
		}
	}
	if err := json.Unmarshal([]byte(out.Stdout), &list); err != nil {
		s.Fatal(err)
	}
	for _, h := range list {
		if h.Host == name {
			return time.Duration(h.Status.Durations["stage"]) * time.Millisecond
		}
	}
	s.Fatalf("no %s: %v", name, out)
	return 0
}
