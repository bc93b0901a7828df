package engine_test

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/policy"
	"narwharf/hooks/rollout/roster"
)

var shards = flag.Int("shards", 0, "shards of 100 random worlds, some 8,000 steps each. 0: the same worlds each time, more than 1,000,000 steps, or 8,000 with -short, and random ones for randomFor")

// randomFor is how long random worlds are tried without -shards, and randomShards how many of 100.
const (
	randomFor    = 40 * time.Second
	randomShards = 32
)

var trace = flag.Bool("trace", false, "tell what happens in each step of a world: for -rapid.failfile")

var modelSteps atomic.Int64

// TestModel throws random events at an engine with random agents, and holds it after
// every step against a model that counts everything anew, naively, from the rows that
// were stored and from what the agents really do.
func TestModel(t *testing.T) {
	n := *shards
	if n == 0 {
		n = 1
		fix(t, "rapid.seed", "20261130")
		if !testing.Short() {
			fix(t, "rapid.checks", "13000")
		}
	}
	t.Cleanup(func() {
		is := modelSteps.Load()
		if t.Logf("%d steps", is); *shards == 0 && !testing.Short() && is < 1_000_000 {
			t.Errorf("the model took %d steps, and is to take 1,000,000", is)
		}
	})
	for i := range n {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) { newModel(t).play(t) })
		})
	}
}

// TestRandomModel is TestModel with worlds that nobody has seen yet. It says by which seeds: one that
// fails is played again by -run TestRandomModel -rapid.seed=SEED.
func TestRandomModel(t *testing.T) {
	if *shards > 0 || testing.Short() {
		t.Skip("TestModel has random worlds with -shards, and -short has none")
	}
	fix(t, "rapid.checks", "100")
	began, first := time.Now(), uint64(time.Now().UnixNano())
	n := randomShards
	if given := flag.Lookup("rapid.seed").Value.String(); given != "0" {
		fmt.Sscan(given, &first) //nolint:errcheck // it is a number, says rapid's flag
		n = 1
	}
	t.Logf("up to %d seeds from %d on", n, first)
	for i := range uint64(n) {
		if time.Since(began) > randomFor {
			t.Logf("%d of %d seeds in %s", i, n, randomFor)
			break
		}
		fix(t, "rapid.seed", fmt.Sprint(first+i))
		rapid.Check(t, func(t *rapid.T) { newModel(t).play(t) })
	}
}

// fix sets a flag for the test.
func fix(t *testing.T, name, value string) {
	t.Helper()
	was := flag.Lookup(name).Value.String()
	if err := flag.Set(name, value); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = flag.Set(name, was) })
}

const steps = 300

// policies are those of random worlds.
var policies = []string{
	`{"rollout": {}}`,
	`{"rollout": {"max_concurrency": 1, "max_errors": 1, "prefetch": false, "attempt_timeout": "20m"}}`,
	`{"rollout": {"waves": [{"select": "canary", "max": 1, "bake": "10m"}, {"max": "50%", "approve": true}, {}], "max_concurrency": "34%", "success_threshold": "80%", "on_failure": "revert_wave", "max_errors": "20%"}}`,
	`{"rollout": {"waves": [{"max": "30%", "bake": "3m", "checks": ["rate"]}, {}], "max_concurrency": 2, "on_failure": "revert_all", "timeout": "1h"}}`,
	`{"rollout": {"after": [{"first": "role=db", "then": "role=app"}], "on_supersede": "queue", "max_errors": 2}}`,
	`{"rollout": {"waves": [{"max": 2}, {}], "after": [{"first": "role=db", "then": "role=app", "if_offline": "skip"}], "on_supersede": "reject", "quarantine_after": 0, "max_concurrency": 3, "max_errors": "50%"}}`,
}

// model is a world with what the model remembers.
type model struct {
	*world
	rt      *rapid.T
	seqs    map[string]int64
	retried map[string]bool      // "channel seq": somebody said retry
	met     map[string]time.Time // by wave: since when enough hosts are well
	checks  map[string]time.Time // by wave: when its check said yes first
	wasBad  map[string]string    // by host: what it ended badly with
	byRule  map[string]bool      // by host: it was a new machine before this step, about which nothing was decided
	pending map[string]*rollout.Level
	answers map[string]rollout.Answer
	nodes   int
	steps   int
}

func newModel(rt *rapid.T) *model {
	m := &model{world: newWorld(rt), rt: rt, seqs: make(map[string]int64), retried: make(map[string]bool), met: make(map[string]time.Time), checks: make(map[string]time.Time),
		wasBad: make(map[string]string), byRule: make(map[string]bool), pending: make(map[string]*rollout.Level), answers: make(map[string]rollout.Answer)}
	m.after = m.invariants
	for i, c := range []string{"a", "b"} {
		m.policy(c, policies[rapid.IntRange(0, len(policies)-1).Draw(rt, "policy "+c)])
		set := m.policies[c]
		set.Reboots = i == 1
		m.policies[c] = set
		m.must(set)
	}
	for range rapid.IntRange(1, 7).Draw(rt, "hosts") {
		m.newHost(rapid.Uint32().Draw(rt, "host"))
	}
	return m
}

func (m *model) newHost(r uint32) {
	m.nodes++
	name := fmt.Sprintf("h%d", m.nodes)
	labels := map[string]string{"role": []string{"db", "app", "web"}[r%3]}
	if r/4%4 == 0 {
		labels["canary"] = "yes"
	}
	current := "/p0"
	if r/16%8 == 0 {
		current = ""
	}
	a := m.add([]string{"a", "b"}[r/128%2], name, labels, current)
	a.deniesAll, a.refusesAll, a.deaf = r/256%2 == 0, r/512%8 == 0, r/4096%8 == 1
	a.silent = r/32768%4 == 0
	a.level.DeniesBytes, a.level.Refuses = a.deniesAll, a.refusesAll
	a.report()
}

func (m *model) play(rt *rapid.T) {
	n := rapid.IntRange(1, steps).Draw(rt, "steps")
	ops := rapid.SliceOfN(rapid.Uint32(), n, n).Draw(rt, "ops")
	for _, op := range ops {
		m.op(op)
	}
	m.calm()
	modelSteps.Add(int64(m.steps))
}

// op is one random thing that happens. Zero is that a minute passes.
func (m *model) op(r uint32) {
	kind, x := r%64, r/64
	switch {
	case kind == 0:
		m.now = m.now.Add(time.Minute)
	case kind < 36 && len(m.names) > 0:
		m.agentDoes(m.agents[m.names[int(x)%len(m.names)]], x/16)
		return
	case kind < 44:
		m.now = m.now.Add(time.Duration(x%1200) * time.Second)
	case kind < 50:
		m.randomPromote(x)
		return
	case kind < 56:
		m.randomVerb(x)
		return
	case kind < 58:
		m.randomLimits(x)
		return
	case kind == 58:
		c := []string{"a", "b"}[x%2]
		m.closed[c] = !m.closed[c]
		m.check(rollout.Window{Channel: c, Open: !m.closed[c]})
		return
	case kind == 59:
		c := []string{"a", "b"}[x%2]
		p, _ := policy.Parse([]byte(policies[int(x/2)%len(policies)]))
		m.policies[c] = rollout.PolicySet{Channel: c, Policy: p, Reboots: x/64%2 == 0}
		m.check(m.policies[c])
		return
	case kind == 60:
		c := []string{"a", "b"}[x%2]
		if _, wave, _ := m.e.Asks(c); wave > 0 {
			ev := rollout.Checked{Channel: c, Seq: m.run(c).Seq, Wave: wave, Name: "rate", Asked: m.now.Add(-time.Duration(x/2%3) * time.Minute), OK: x/8%8 != 0, None: x/64%8 == 0, Stands: time.Duration(x/512%3) * 2 * time.Minute}
			m.check(ev)
			return
		}
	case kind == 61 && len(m.names) < 8:
		m.newHost(x)
	case kind == 62 && len(m.names) > 2 && x%4 == 0:
		name := m.names[int(x/4)%len(m.names)]
		m.names = slices.DeleteFunc(m.names, func(n string) bool { return n == name })
		delete(m.agents, name)
		delete(m.pending, name)
		delete(m.answers, name)
		m.forget(name)
		m.check(rollout.Gone{Host: name})
		return
	case kind == 63: // the driver was killed, and another goes on, which may have heard of nobody yet
		if x%2 == 0 {
			m.now = m.now.Add(time.Duration(x/2%3) * 20 * time.Minute)
			m.began = m.now
			clear(m.answers) // every host asks anew
		}
		m.e = m.reload()
	}
	m.check(rollout.Tick{})
}

// forget is that what a host did before is no reason any more.
func (m *model) forget(host string) {
	for key := range m.wasBad {
		if strings.HasSuffix(key, " "+host) {
			delete(m.wasBad, key)
		}
	}
}

// agentDoes is something that a host does, or that the driver is told of it.
func (m *model) agentDoes(a *agent, x uint32) {
	l := &a.level
	kind, y := x%16, x/16
	switch {
	case kind < 5 && a.away.IsZero():
		a.poll()
	case kind < 10:
		a.act([]api.State{api.OK, api.OK, api.OK, api.OK, api.Reverted, api.Armed, api.Failed, api.WaitingState}[y%8])
		if l.State == api.Armed && y/8%2 == 0 { // it has rebooted
			if e := a.entry(); e != nil {
				l.Current, l.Confirmed, l.State = e.Path, e.Path, api.OK
			}
		}
	case kind == 10 && y%4 == 0:
		if a.away.IsZero() {
			a.away = m.now
		} else {
			a.away = time.Time{}
		}
		m.check(rollout.Seen{Host: l.Host, Away: a.away})
		return
	case kind == 11 && y%8 == 0:
		l.Held = !l.Held
	case kind == 11 && y%8 == 1:
		l.Paused = !l.Paused
	case kind == 12 && y%16 == 0 && !busy(l.State): // its journal is lost
		l.State, l.Seq, l.HighestSeq, l.Attempt, a.grant = api.Idle, 0, 0, "", 0
	case kind == 12 && y%16 == 1 && !busy(l.State): // it moves
		l.Channel = []string{"a", "b"}[y/16%2]
		m.forget(l.Host)
		l.State, l.Seq, l.HighestSeq, l.Attempt, a.grant = api.Idle, 0, 0, "", 0
	case kind == 12 && y%16 == 2 && l.State == api.OK: // a person switches it to something else
		l.State, l.Current = api.Drifted, "/person"
	case kind == 12 && y%16 == 3 && l.State == api.Drifted: // it goes back to its entry by itself
		a.begin()
	case kind == 12 && y%16 == 4 && l.State == api.Drifted:
		// It waits for the next release.
	}
	if kind%2 == 0 && !busy(l.State) && l.Channel == a.told.Channel { // the driver is told at once, or later and then of the last alone
		l.At = m.now
		told := *l
		m.pending[l.Host] = &told // what is due by the clock happens meanwhile
		return
	}
	m.deliver(l.Host)
}

// deliver tells the engine what it was not told yet of some hosts.
func (m *model) deliver(name string) {
	a := m.agents[name]
	told := a.level
	told.At = m.now
	delete(m.pending, name)
	events := []rollout.Event{rollout.Report{Level: &told}}
	a.told, a.away = &told, time.Time{}
	for _, other := range sorted(m.pending) {
		if len(events) > 2 {
			break
		}
		l := m.pending[other]
		delete(m.pending, other)
		m.agents[other].told, m.agents[other].away = l, time.Time{}
		events = append(events, rollout.Report{Level: l})
	}
	m.check(events...)
}

func (m *model) randomPromote(x uint32) {
	c := []string{"a", "b"}[x%2]
	m.seqs[c]++
	seq := m.seqs[c]
	base := int(x / 2 % 5)
	m.put(c, seq, func(target string) string {
		switch {
		case x/16%4 == 0 && target == "h1":
			return "" // it is not in this release
		case x/64%4 == 0 && target == "h2":
			return "/p0"
		}
		return fmt.Sprintf("/p%d", base)
	})
	m.check(rollout.Promote{Channel: c, Seq: seq, Now: x/256%8 == 0, Force: x/2048%2 == 0, Rollback: x/4096%4 == 0})
}

func (m *model) randomVerb(x uint32) {
	c := []string{"a", "b"}[x%2]
	verb := []string{rollout.Pause, rollout.Resume, rollout.Resume, rollout.Abort, rollout.Retry, rollout.Retry, rollout.Advance, rollout.Skip}[x/2%8]
	if m.e.Channels[c].Run == nil {
		return
	}
	seq := m.run(c).Seq
	key := fmt.Sprintf("%s %d", c, seq)
	was := m.retried[key]
	m.retried[key] = was || verb == rollout.Retry // the step itself may grant again
	if _, err := m.checked(rollout.Verb{Channel: c, Seq: seq, Verb: verb, By: "x"}); err != nil {
		m.retried[key] = was
	}
}

func (m *model) randomLimits(x uint32) {
	l := rollout.Limits{Budgets: make(map[string]rollout.Budget), Holds: make(map[string]rollout.Hold)}
	if x%2 == 0 {
		l.Budgets["db"] = rollout.Budget{Select: policy.MustSelect("role=db"), MaxUnavailable: *policy.Number(1)}
	}
	if x/2%2 == 0 {
		l.Budgets["half"] = rollout.Budget{MaxUnavailable: *policy.Share(50)}
	}
	until := m.now.Add(time.Duration(x/64%90) * time.Minute)
	if x/4%4 == 0 {
		l.Freeze = &rollout.Hold{Reason: "audit", Until: until}
	}
	if x/16%4 == 0 {
		l.Holds["app"] = rollout.Hold{Select: policy.MustSelect("role=app"), Reason: "look", Until: until}
	}
	m.limits = l
	m.check(l)
}

func (m *model) check(events ...rollout.Event) { _, _ = m.checked(events...) }

// checked is a step of the engine, after which everything has to hold.
func (m *model) checked(events ...rollout.Event) (*rollout.Changes, error) {
	if *trace {
		m.after = func(out *rollout.Changes) { m.tell(events, out); m.invariants(out) }
	}
	out, err := m.step(events...)
	if err != nil {
		if _, ok := err.(*rollout.Refusal); !ok { //nolint:errorlint // it is never wrapped
			m.rt.Fatalf("%v", err)
		}
	}
	return out, err
}

// tell is what a step was told, and what came of it.
func (m *model) tell(events []rollout.Event, out *rollout.Changes) {
	for _, ev := range events {
		m.rt.Logf("%s %T %s", m.now.Format(time.TimeOnly), ev, text(ev))
	}
	for _, d := range out.Decisions {
		m.rt.Logf("    %s %s %s %d, wave %d: %s", d.Host, d.Kind, d.Channel, d.Seq, d.Wave, d.Text)
	}
	for _, h := range out.Hosts {
		m.rt.Logf("    %s", text(h))
	}
	for _, r := range out.Rollouts {
		m.rt.Logf("    %s %d %s %s", r.Channel, r.Seq, r.State, text(r.Waves))
	}
}

// calm lets everybody be well and time pass: then everything comes to an end.
func (m *model) calm() {
	m.limits = rollout.Limits{}
	m.check(m.limits)
	for _, c := range []string{"a", "b"} {
		m.closed[c] = false
		m.check(rollout.Window{Channel: c, Open: true})
	}
	for round := range 60 {
		if m.atRest() {
			break
		}
		m.now = m.now.Add(5 * time.Minute)
		for _, name := range m.names {
			a := m.agents[name]
			a.level.Held, a.level.Paused = false, false
			if a.level.State == api.Drifted {
				a.begin()
			}
			a.poll()
			a.act(api.OK)
			if a.level.State == api.Armed {
				if e := a.entry(); e != nil {
					a.level.Current, a.level.Confirmed, a.level.State = e.Path, e.Path, api.OK
				}
			}
			m.deliver(name)
		}
		if round%10 == 9 {
			m.check(rollout.Tick{})
		}
	}
	for _, c := range m.e.Order {
		if c.Run != nil {
			m.hasEnded(c)
		}
	}
}

// atRest tells whether every roll-out is over or waits for a person, and every host
// has come to an end.
func (m *model) atRest() bool {
	for _, c := range m.e.Order {
		if c.Flight > 0 {
			return false
		}
		if c.Run == nil || c.Run.Row.State.Over() || c.Run.Row.State == rollout.Halted || c.Run.Row.State == rollout.Paused {
			continue
		}
		return false
	}
	for _, a := range m.agents {
		if busy(a.level.State) || a.level.State == api.Drifted || a.level.Held || a.level.Paused || !a.away.IsZero() {
			return false
		}
	}
	return true
}

// hasEnded: a roll-out is over, or waits for a person.
func (m *model) hasEnded(c *roster.Channel) {
	s := c.Run.Row.State
	if s == rollout.Aborting {
		m.rt.Fatalf("the abort of %s does not end: %d in flight, %d of them stuck", c.Row.Name, c.Flight, c.Stuck)
	}
	if s != rollout.Running && s != rollout.Planned {
		return
	}
	if n := len(c.Run.Row.Waves); n > 0 {
		spec, t := c.Run.Row.Policy.All()[n-1], c.Run.Waves[n-1]
		if spec.Approve || spec.Checks != nil || t[roster.Open]+t[roster.Well] == 0 {
			return
		}
	}
	rows := ""
	for _, h := range m.hostsOf(c.Row.Name) {
		rows += fmt.Sprintf("\n%s\n%s\n%+v", text(h.Row), text(h.Level), h.Counted)
	}
	m.rt.Fatalf("release %d of %s is still %s after five calm hours: %s %v%s", c.Run.Row.Seq, c.Row.Name, s, text(c.Run.Row), c.Run.Waves, rows)
}
