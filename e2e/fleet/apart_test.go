package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestApart is roll-outs over hosts that do not all take part: h1 and h2 follow web, h3 and h4 follow
// db, under one budget; h2 obeys no directives, is off for a whole roll-out, or is removed.
func TestApart(t *testing.T) {
	onlyLong(t)
	need(t)
	t.Parallel()
	special := func(host string, s *System) {
		switch host {
		case "h2":
			s.AgentConfig += "\n[directives]\nobey = \"never\"\n"
		case "h3", "h4":
			s.AgentConfig = strings.NewReplacer("cache/web", "cache/db", `"web"`, `"db"`).Replace(s.AgentConfig)
		}
	}
	token := ""
	fw := follow(t, 4, func(toml string) string { return toml }, func(f *Fleet, name string, h *HostOptions) {
		if special(name, h.System); name > "h2" {
			if token == "" {
				token = f.Server().Token("db-hosts", "follow:db", "pull")
			}
			h.Files["var/lib/narwharf/token"] = token
		}
	})
	web, db, all := []string{"h1", "h2"}, []string{"h3", "h4"}, []string{"h1", "h2", "h3", "h4"}
	v := fw.mixedSystems(map[string]func(*System){"a": asItIs, "b": asItIs, "c": asItIs, "d": asItIs, "e": asItIs, "f": asItIs, "g": asItIs, "h": asItIs}, special, all...)
	// sends promotes a version on both channels, and returns the seqs.
	sends := func(fw *rollingout, version string, more ...string) (seqs [2]int64) {
		fw.T.Helper()
		for i, args := range [][]string{append([]string{"web"}, v[version].args(web...)...), append([]string{"db"}, v[version].args(db...)...)} {
			if out := fw.narwharf("promote", append(args, more...)...); out.Code != 0 {
				fw.T.Fatalf("%v", out)
			}
			seqs[i] = fw.seqOf(args[0])
		}
		return seqs
	}
	var stays mixed // what web runs
	fw.tells(t, "two channels under one budget", func(s *Story, fw *rollingout) {
		sends(fw, "a", "--wait")
		for _, host := range all {
			fw.CI().Must("narwharf", "host", "label", host, "role=etcd")
		}
		fw.CI().Must("narwharf", "budget", "set", "quorum", "1", "--select", "role=etcd")
		for _, channel := range []string{"web", "db"} {
			fw.CI().Sh(`printf %s "$1" | narwharf channel policy "$2" --file -`, `{"rollout":{"waves":[{}]}}`, channel)
		}
		for i, more := range [][]string{nil, {"--now", "--reason", "a test"}} {
			version := []string{"b", "c"}[i]
			looked := fw.sights()
			begin := time.Now()
			seqs := sends(fw, version, more...)
			Eventually(s, 3*time.Minute, "hosts of both wait for the budget", func() error {
				if one, two := fw.shown("web"), fw.shown("db"); one.Waits["budget"] == 0 || two.Waits["budget"] == 0 {
					return fmt.Errorf("%+v, %+v", one, two)
				}
				return nil
			})
			fw.over("web", seqs[0], "completed")
			fw.over("db", seqs[1], "completed")
			s.Took(strings.Join(append([]string{"promote"}, more[:min(1, len(more))]...), " ")+" to both completed", time.Since(begin))
			fw.mixed(v[version], "ok", web...)
			for _, host := range db {
				if st := fw.Host(host).State(); st.Current != v[version].of[host] || st.Hello != version {
					s.Errorf("%s: %+v", host, st)
				}
			}
			seen := looked()
			if took := append(seen.took(seqs[0]), seen.took(seqs[1])...); len(took) < 4 {
				s.Errorf("%v took it", took)
			}
			if most := seen.most(all...); most != 1 {
				s.Errorf("%d were unavailable at a time, want one", most)
			}
			stays = v[version]
		}
		fw.CI().Must("narwharf", "budget", "remove", "quorum")
	})
	fw.tells(t, "a host that is off for the whole roll-out", func(s *Story, fw *rollingout) {
		fw.policy(`{"rollout":{"waves":[{}],"offline_after":"1m"}}`)
		fw.Host("h2").PowerOff()
		b := v["d"]
		begin := time.Now()
		seq := fw.send(b.args(web...)...)
		fw.over("web", seq, "completed")
		s.Took("promote to completed without it", time.Since(begin))
		fw.mixed(b, "ok", "h1")
		if r := fw.shown("web"); r.Offline != 1 || r.Waits["offline"] != 1 {
			s.Errorf("%+v", r)
		}
		begin = time.Now()
		fw.Host("h2").Boot()
		fw.takes("h2", b)
		s.Took("power on to well", time.Since(begin))
		fw.mixed(b, "ok", web...)
		if r := fw.shown("web"); r.Seq != seq || r.State != "completed" || r.Offline != 0 {
			s.Errorf("%+v", r)
		}
		stays = b
	})
	fw.tells(t, "a host that went off just before is not the first wave", func(s *Story, fw *rollingout) {
		fw.policy(`{"rollout":{"waves":[{"max":1},{}]}}`)
		fw.Host("h2").PowerOff()
		Eventually(s, 2*time.Minute, "the server does not hear of it", func() error {
			if r := fw.reported()["h2"]; r.Online {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		b := v["h"]
		begin := time.Now()
		seq := fw.send(b.args(web...)...)
		fw.takes("h1", b)
		s.Took("promote to the other one well", time.Since(begin))
		fw.Host("h2").Boot()
		fw.over("web", seq, "completed")
		fw.mixed(b, "ok", web...)
		stays = b
	})
	fw.tells(t, "a host that is removed in the middle of its attempt", func(s *Story, fw *rollingout) {
		fw.policy(`{"rollout":{"waves":[{}],"max_concurrency":1}}`)
		b := v["e"]
		looked := fw.sights()
		begin := time.Now()
		seq := fw.send(b.args(web...)...)
		var first *Host
		Eventually(s, 3*time.Minute, "one of them is at it", func() error {
			for _, host := range web {
				if j, err := fw.Host(host).agentJournal(); err == nil && j.Seq == seq && slices.Contains(busy, j.State) {
					first = fw.Host(host)
					return nil
				}
			}
			return fmt.Errorf("%+v", fw.shown("web"))
		})
		fw.CI().Must("narwharf", "host", "remove", first.Name())
		fw.over("web", seq, "completed")
		s.Took("promote to completed", time.Since(begin))
		for _, host := range web {
			fw.takes(host, b)
		}
		fw.mixed(b, "ok", web...)
		if took := looked().took(seq); !slices.Equal(took, web) {
			s.Errorf("%v took it", took)
		}
		stays = b
	})
	fw.tells(t, "an abort, and a host that obeys no directives", func(s *Story, fw *rollingout) {
		fw.policy(`{"rollout":{"waves":[{"bake":"10h"}]}}`)
		b := v["f"]
		seq := fw.send(b.args(web...)...)
		for _, host := range web {
			fw.takes(host, b)
		}
		begin := time.Now()
		fw.says("abort")
		fw.over("web", seq, "aborted")
		s.Took("abort to aborted", time.Since(begin))
		fw.mixed(stays, "reverted", "h1")
		fw.mixed(b, "ok", "h2")
		if r := fw.shown("web"); r.Left != 1 || r.Back != 1 {
			s.Errorf("%+v", r)
		}
		fw.policy(`{"rollout":{"waves":[{}]}}`)
		for _, next := range []mixed{b, v["g"]} { // the same again, and another
			fw.over("web", fw.send(next.args(web...)...), "completed")
			fw.mixed(next, "ok", web...)
		}
	})
}
