package hooks

import (
	"encoding/json"
	"flag"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"narwharf/hooks/api"
	"narwharf/hooks/channel"
	"narwharf/hooks/rollout"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// Real agents whose channel has roll-outs.

func (a *agents) rules(text string) {
	a.ask("PUT", "/api/v1/channels/"+sim.Channel+"/policy", a.op, json.RawMessage(text), 200)
}

// sends promotes a system to all hosts, and tells whether that was taken.
func (a *agents) sends(path string) bool {
	e := signing.Entry{Target: signing.Everyone, StorePath: path, Closure: sim.Manifest(path).Digest(), System: sim.Machine, Action: signing.Switch}
	r, err := signing.NewRelease(signing.Head{Origin: sim.Origin, Channel: sim.Channel, Seq: a.seq + 1, Created: a.world.now()}, []signing.Entry{e}, a.keys.Key)
	if err != nil {
		a.t.Fatalf("%v", err)
	}
	body := api.Promotion{Release: *r, Keys: []string{a.keys.Key.Public().String()}, Kind: api.KindPath}
	got := a.ask("PUT", "/api/v1/channels/"+sim.Channel, a.admin, body, 0, "If-Match", channel.ETag(a.seq))
	if got.status == 200 {
		a.seq++
	}
	return got.status == 200
}

// says is an operator's word about the present roll-out.
func (a *agents) says(verb string) answer {
	return a.ask("POST", "/api/v1/rollouts/"+sim.Channel+"/"+verb, a.op, map[string]any{"seq": a.rollout().Seq, "reason": "a test"}, 0)
}

func (a *agents) rollout() *rollout.Summary {
	s, err := a.s.Rollouts.Show(sim.Channel, 0)
	if err != nil {
		a.t.Fatalf("%v", err)
	}
	return s
}

// round lets the driver and each host go on once.
func (a *agents) round() {
	for _, h := range a.hosts {
		a.s.Rollouts.Begin()
		h.turn()
	}
	a.s.Rollouts.Begin()
}

// rests lets them go on until a roll-out has an end, or does not come to one.
func (a *agents) rests(limit int) rollout.State {
	for range limit {
		a.round()
		switch s := a.rollout(); s.State {
		case rollout.Completed, rollout.Halted, rollout.Aborted, rollout.Superseded:
			if s.Seq == a.seq {
				return s.State
			}
		}
	}
	return a.rollout().State
}

func (a *agents) tell() string {
	text, _ := json.MarshalIndent(a.rollout(), "", " ")
	out := string(text)
	for _, h := range a.hosts {
		answer, _ := a.s.Rollouts.Answer(sim.Channel, h.name)
		s := h.Acks[len(h.Acks)-1]
		out += fmt.Sprintf("\n%s runs %s, is %s of %d (%s), waits for %+v\n  %+v", h.name, h.Current, s.State, s.Seq, s.Error, s.WaitingFor, answer)
	}
	return out
}

const agentWaves = `{"rollout":{"waves":[{"name":"canary","select":"canary=true","max":1,"bake":"1m"},{"max":"50%%"},{}],"quarantine_after":0%s}}`

// TestAgentsUnderRollouts: whatever hosts went through, a system in which nothing is wrong
// completes on all of them. It plays the same each time.
func TestAgentsUnderRollouts(t *testing.T) {
	checks := "12"
	if testing.Short() {
		checks = "3"
	}
	for name, value := range map[string]string{"rapid.seed": "20261130", "rapid.checks": checks} {
		was := flag.Lookup(name).Value.String()
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = flag.Set(name, was) })
	}
	w := newWorld(t)
	path, round := w.path, 0
	rapid.Check(t, func(rt *rapid.T) {
		w.stop()
		round++
		w.path = fmt.Sprint(path, round)
		w.files.files = make(map[string][]byte)
		w.start()
		var systems []sim.System
		for _, name := range []string{"a", "b", "c", "d"} {
			systems = append(systems, sim.System{Path: sim.Path(name)})
		}
		for _, name := range []string{"x", "y"} {
			systems = append(systems, sim.System{Path: sim.Path(name), CheckFails: true})
		}
		a := newAgents(w, rt, 3, systems...)
		a.sends(systems[0].Path)
		for !a.ends() {
			a.round()
		}
		a.ask("PATCH", "/api/v1/hosts/h0", a.op, map[string]any{"labels": map[string]string{"canary": "true"}}, 200)
		rules := rapid.SampledFrom([]string{"", `,"prefetch":false`, `,"on_failure":"revert_all"`, `,"max_errors":1`})
		a.rules(fmt.Sprintf(agentWaves, rules.Draw(rt, "rules")))
		for range rapid.IntRange(1, 12).Draw(rt, "things") {
			switch rapid.IntRange(0, 9).Draw(rt, "thing") {
			case 0, 1, 2, 3:
				s := rapid.SampledFrom(systems).Draw(rt, "system")
				rt.Logf("promote %s: %v", s.Path, a.sends(s.Path))
			case 4, 5:
				rt.Logf("abort: %d", a.says("abort").status)
			case 6:
				verb := rapid.SampledFrom([]string{"retry", "resume", "pause"}).Draw(rt, "verb")
				rt.Logf("%s: %d", verb, a.says(verb).status)
			case 7:
				a.rules(fmt.Sprintf(agentWaves, rules.Draw(rt, "rules")))
			case 8:
				w.restart()
			case 9:
				a.hosts[rapid.IntRange(0, 2).Draw(rt, "host")].agent = nil // killed
			}
			for range rapid.IntRange(0, 60).Draw(rt, "rounds") {
				a.round()
			}
		}
		a.rules(fmt.Sprintf(agentWaves, rules.Draw(rt, "rules")))
		last := rapid.SampledFrom(systems[:4]).Draw(rt, "last")
		for range 20 {
			if a.sends(last.Path) {
				break
			}
			a.round()
		}
		if got := a.rests(4000); got != rollout.Completed {
			rt.Fatalf("%s of %s: %s", got, last.Path, a.tell())
		}
		for range 20 {
			a.round()
		}
		for _, h := range a.hosts {
			if s, _ := h.state(); s != api.OK || h.Current != last.Path {
				rt.Fatalf("%s: %s", h.name, a.tell())
			}
			if len(h.Violations) > 0 {
				rt.Fatalf("%s: %v", h.name, h.Violations)
			}
		}
	})
}

// TestReplacedByItsGrant: without prefetch a host that fetches what another release replaces says that
// it let go of its grant, and begins with the other soon, not when its lease would be over.
func TestReplacedByItsGrant(t *testing.T) {
	w := newWorld(t)
	a, systems := newAgents(w, t, 2, sim.System{Path: sim.Path("a")}, sim.System{Path: sim.Path("b")}, sim.System{Path: sim.Path("c")}), []string{"a", "b", "c"}
	a.sends(sim.Path(systems[0]))
	for !a.ends() {
		a.round()
	}
	a.rules(`{"rollout":{"prefetch":false}}`)
	a.sends(sim.Path(systems[1]))
	for i := 0; ; i++ {
		if s, seq := a.hosts[0].state(); seq == a.seq && s.Before() {
			break
		} else if i > 2000 {
			t.Fatal(a.tell())
		}
		a.round()
	}
	began := w.now()
	a.sends(sim.Path(systems[2]))
	if got := a.rests(4000); got != rollout.Completed {
		t.Fatalf("%s: %s", got, a.tell())
	}
	if took := w.now().Sub(began); took > 5*time.Minute {
		t.Errorf("the other release took %s: %s", took, a.tell())
	}
	for _, h := range a.hosts {
		if h.Current != sim.Path("c") || len(h.Violations) > 0 {
			t.Errorf("%s runs %s: %v", h.name, h.Current, h.Violations)
		}
	}
}
