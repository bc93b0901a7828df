package fleet

import (
	"fmt"
	"testing"
	"time"

	"narwharf/e2e"
)

// TestPreviousWaves is roll-outs over hosts of which h1, the canary, and h2 have the agent of the
// previous build, and h3 this one's.
func TestPreviousWaves(t *testing.T) {
	onlyLong(t)
	need(t)
	t.Parallel()
	bin := e2e.PreviousBin(t)
	previous := ""
	fw := follow(t, 3, func(toml string) string { return toml }, func(f *Fleet, name string, h *HostOptions) {
		if name != "h3" {
			previous = f.CI().AgentOf(bin)
			h.System.Agent = previous
		}
	})
	agents := map[string]string{"h1": previous, "h2": previous, "h3": fw.agent}
	bad := misbehave(Unhealthy)
	v := fw.mixedSystems(map[string]func(*System){
		"0": asItIs, "a": asItIs, "b-bad": bad, "c-bad": bad, "c": asItIs, "d1": asItIs, "d2": asItIs, "e1": asItIs, "e2": asItIs,
		"f": asItIs, "g": asItIs, "g-bad": bad, "h": asItIs,
	}, func(host string, s *System) { s.Agent = agents[host] }, fw.names...)
	const waves = `{"rollout":{"waves":[{"name":"canary","select":"canary=true","max":1,"bake":%q},{"max":"50%%"},{"max":"100%%"}]%s}}`
	var stays mixed // the last that completed
	completes := func(s *Story, fw *rollingout, m mixed) {
		s.Helper()
		begin := time.Now()
		fw.over("web", fw.send(m.args()...), "completed")
		s.Took("promote to completed", time.Since(begin))
		fw.mixed(m, "ok")
		stays = m
	}
	fw.tells(t, "agents of before: waves", func(s *Story, fw *rollingout) {
		stays = v["0"]
		fw.promote(0, stays.args()...)
		fw.CI().Must("narwharf", "host", "label", "h1", "canary=true")
		fw.policy(fmt.Sprintf(waves, "2s", ""))
		completes(s, fw, v["a"])
	})
	fw.tells(t, "agents of before: a bad canary stops the others", func(s *Story, fw *rollingout) {
		fw.over("web", fw.send(v["b-bad"].args()...), "halted")
		fw.mixed(stays, "reverted", "h1")
		fw.mixed(stays, "waiting", "h2", "h3")
	})
	fw.tells(t, "agents of before: an abort of what went bad, and the next release", func(s *Story, fw *rollingout) {
		fw.over("web", fw.send(v["c-bad"].args()...), "halted")
		fw.says("abort")
		fw.over("web", fw.show().Seq, "aborted")
		completes(s, fw, v["c"])
	})
	for _, c := range []struct{ name, version, rules string }{{"", "d", ""}, {", prefetch: false", "e", `,"prefetch":false`}} {
		fw.tells(t, "agents of before: aborts of what went well, then the same once more"+c.name, func(s *Story, fw *rollingout) {
			one, two, rules := v[c.version+"1"], v[c.version+"2"], c.rules
			for _, good := range []mixed{one, two} {
				fw.policy(fmt.Sprintf(waves, "10m", rules))
				seq := fw.send(good.args()...)
				fw.takes("h1", good)
				fw.says("abort")
				fw.over("web", seq, "aborted")
				fw.mixed(stays, "reverted", "h1")
			}
			fw.policy(fmt.Sprintf(waves, "2s", rules))
			completes(s, fw, one)
			completes(s, fw, two)
		})
	}
	fw.tells(t, "agents of before: an abort in the middle of the canary's probation, and the next", func(s *Story, fw *rollingout) {
		fw.policy(fmt.Sprintf(waves, "2s", ""))
		good := v["f"]
		seq := fw.send(good.args()...)
		if _, err := fw.Host("h1").await(3*time.Minute, seq, "probation"); err != nil {
			s.Fatal(err)
		}
		fw.says("abort")
		fw.over("web", seq, "aborted")
		fw.mixed(stays, "reverted", "h1")
		completes(s, fw, good)
	})
	fw.tells(t, "agents of before: prefetch: false", func(s *Story, fw *rollingout) {
		fw.policy(fmt.Sprintf(waves, "2s", `,"prefetch":false`))
		completes(s, fw, v["g"])
		seq := fw.send(v["g-bad"].args()...)
		fw.over("web", seq, "halted")
		for name, r := range fw.reported() {
			if name != "h1" && r.Status.Seq == seq {
				s.Errorf("%s was shown it: %+v", name, r)
			}
		}
		fw.mixed(stays, "reverted", "h1")
		completes(s, fw, v["h"])
	})
}
