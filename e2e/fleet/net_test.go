package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestNet puts between hosts and the server what is there in the field: h1 comes through a reverse
// proxy with a private authority that cuts at 50 s, h2 has three URLs of which the first has no
// address and the second will be gone, h3 is behind a firewall that forgets connections.
func TestNet(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	var tlsFront *front
	var second, third *wire
	special := map[string]func(*System){}
	prepare := func(f *Fleet) {
		if tlsFront != nil {
			return
		}
		var authority string
		tlsFront, authority = newFront(f, 8443, 50*time.Second)
		second, third = newWire(f, 8083), newWire(f, 8082)
		servers := func(s *System, urls string) {
			s.AgentConfig = strings.Replace(s.AgentConfig, `server = ["http://cache"]`, "server = ["+urls+"]", 1)
		}
		special["h1"] = func(s *System) {
			servers(s, `"https://ci:8443"`)
			s.AgentConfig = "ca_file = \"/etc/narwharf/ca.pem\"\n" + s.AgentConfig
			s.Etc = map[string]string{"narwharf/ca.pem": authority}
			s.AgentService = "Environment=NIX_REMOTE=\n" // as on NixOS: root's Nix needs no daemon
		}
		special["h2"] = func(s *System) { servers(s, `"http://nowhere.invalid", "http://ci:8083", "http://cache"`) }
		special["h3"] = func(s *System) {
			servers(s, `"http://ci:8082"`)
			s.AgentConfig += "\n[poll]\nwait = \"10s\"\n"
		}
	}
	fw := newFollowerWith(t, 3, prepare, special)
	// promote sends every host a system with its own configuration.
	versions := map[string]string{}
	send := func(fw *follower, version string, names ...string) int64 {
		fw.T.Helper()
		var entries []string
		for _, name := range names {
			versions[name] = fw.system(version, special[name])
			entries = append(entries, name+"="+versions[name])
		}
		if len(names) < len(fw.names) {
			entries = []string{"--set", strings.Join(entries, ",")}
		}
		return fw.send(entries...)
	}
	ok := func(fw *follower, seq int64, limit time.Duration, names ...string) {
		fw.T.Helper()
		Eventually(fw.T, limit, strings.Join(names, " ")+" confirmed", func() error {
			reported := fw.reported()
			for _, name := range names {
				if r := reported[name]; r.Status.State != "ok" || r.Status.Seq != seq || r.Status.Current != versions[name] {
					return fmt.Errorf("%s: %+v\n%s", name, r, tail(fw.Host(name).Journal("narwharf.service"), 8))
				}
			}
			return nil
		})
	}
	all := []string{"h1", "h2", "h3"}
	fw.story(t, "5.6: private CA; a URL without an address; a forwarder", func(s *Story, fw *follower) {
		ok(fw, send(fw, "one", all...), time.Minute, all...)
	})
	fw.story(t, "5.6: the URL in use is gone, another takes over", func(s *Story, fw *follower) {
		second.cut()
		begin := time.Now()
		ok(fw, send(fw, "two", "h2"), time.Minute, "h2")
		s.Took("to confirmed", time.Since(begin))
	})
	fw.story(t, "5.6: half-open connections", func(s *Story, fw *follower) {
		time.Sleep(2 * time.Second) // h3 has a poll parked
		third.forget()
		begin := time.Now()
		ok(fw, send(fw, "three", "h3"), 90*time.Second, "h3")
		s.Took("to confirmed", time.Since(begin))
	})
	fw.story(t, "5.6: a proxy that cuts at 50 s, then at 30 s", func(s *Story, fw *follower) {
		tlsFront.seen(50 * time.Second)
		await := func(what string, enough func(poll) bool) []poll {
			var polls []poll
			Eventually(s, 2*time.Minute, what, func() error {
				polls = append(polls, tlsFront.seen(tlsFront.limit)...)
				if !slices.ContainsFunc(polls, enough) {
					return fmt.Errorf("%+v", polls)
				}
				return nil
			})
			return polls
		}
		for _, p := range await("a long poll came to its own end", func(p poll) bool { return p.took > 30*time.Second }) {
			if p.status == 504 {
				s.Errorf("a poll was cut: %+v", p)
			}
		}
		tlsFront.seen(30 * time.Second)
		polls := await("a poll was cut", func(p poll) bool { return p.status == 504 })
		polls = append(polls, await("a shorter one was not", func(p poll) bool { return p.status == 304 && p.took > 10*time.Second })...)
		s.Note("polls: %+v", polls)
		begin := time.Now()
		ok(fw, send(fw, "four", "h1"), time.Minute, "h1")
		s.Took("promote to confirmed then", time.Since(begin))
	})
}
