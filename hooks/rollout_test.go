package hooks

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/host"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/roster"
	"narwharf/narinfo"
	"narwharf/signing"
)

// robot is a host whose agent does what the server says, at once.
type robot struct {
	name    string
	st      api.Status
	bad     map[string]bool // systems that it goes back from
	away    bool
	polling bool
	denied  map[int64]bool
	serial  int64
	unsaid  bool // its last report was not taken
	before  string
	shown   []int64  // releases that it was shown, each once
	ran     []string // systems that it activated
}

// fleet is a world with hosts of the channel web.
type fleet struct {
	*world
	later   func(time.Duration)
	robots  []*robot
	systems map[string]narinfo.Path // by name
	left    *atomic.Int64           // writes up to one that fails; nil: none does
}

func newFleet(t testing.TB, hosts int) *fleet {
	w := newWorld(t)
	f := &fleet{world: w, later: w.standing()}
	f.populate(hosts)
	f.settle()
	return f
}

// populate promotes the first release, which some hosts run.
func (f *fleet) populate(hosts int) {
	f.systems = make(map[string]narinfo.Path)
	for _, name := range []string{"a", "b", "c", "d"} {
		f.systems[name] = f.system(name)
	}
	f.promote(1, f.entry("*", f.systems["a"]))
	for i := range hosts {
		old := f.path("a")
		m := &robot{name: fmt.Sprintf("web-%d", i+1), bad: make(map[string]bool), denied: make(map[int64]bool), before: old}
		m.st = api.Status{
			Channel: "web", Agent: "1.0", StartID: 1, Target: m.name, System: "x86_64-linux", BootID: "boot-1", State: api.OK, Seq: 1,
			Attempt: "1", HighestSeq: 1, Current: old, Booted: old, Profile: old, Confirmed: old,
		}
		f.robots = append(f.robots, m)
		f.says(m)
		if i == 0 {
			yes := "true"
			f.patch(m, &host.Patch{Labels: map[string]*string{"canary": &yes}})
		}
	}
}

func (f *fleet) path(name string) string { return f.systems[name].In("/nix/store") }

func (f *fleet) patch(m *robot, p *host.Patch) {
	f.t.Helper()
	if err := f.s.hosts.Patch(context.Background(), host.Caller{Name: "op"}, m.name, p); err != nil {
		f.t.Fatal(err)
	}
}

// says reports what a robot is. What is not taken it says again with its next step.
func (f *fleet) says(m *robot) {
	f.t.Helper()
	m.st.Counter++
	st := m.st
	err := f.s.Fleet.Report(context.Background(), host.Caller{Name: "host"}, m.name, &st)
	if m.unsaid = err != nil; m.unsaid && !f.faults() {
		f.t.Fatal(err)
	}
}

// faults tells whether writes may fail in this test.
func (f *fleet) faults() bool { return f.left != nil }

// policy sets that of web.
func (f *fleet) policy(text string) {
	f.t.Helper()
	f.asks(func() answer { return f.do("PUT", "/api/v1/channels/web/policy", f.op, json.RawMessage(text)) })
	f.settle()
}

// asks is for a request that is to be taken, again if a write fails.
func (f *fleet) asks(ask func() answer) {
	f.t.Helper()
	a := ask()
	if f.faults() && a.status == 500 {
		a = ask()
	}
	f.must(a, 200, "")
}

// settle lets the driver and the hosts go on until nobody has anything to do.
func (f *fleet) settle() {
	f.t.Helper()
	for range 200 {
		f.s.Rollouts.Begin()
		news := false
		for _, m := range f.robots {
			news = f.step(m) || news
		}
		f.s.Rollouts.Begin()
		if !news {
			return
		}
	}
	f.t.Fatal("they do not come to rest")
}

// step is one look of a robot at what it is to do.
func (f *fleet) step(m *robot) (news bool) {
	f.t.Helper()
	if m.away {
		return false
	}
	if !m.polling {
		m.polling = true
		if _, back := f.s.hosts.Presence(m.name).Arrive(f.now(), "web", m.name); back {
			f.s.Rollouts.Came(m.name)
			return true
		}
	}
	if m.unsaid {
		f.says(m)
		return true
	}
	d, err := f.s.Fleet.Tell(m.name, "web", m.name, api.Have{Seq: m.st.HighestSeq, Keys: -1})
	if err != nil && f.faults() {
		return true
	}
	if err != nil {
		f.t.Fatal(err)
	}
	was := m.st
	m.obeys(d.Directive)
	if d.Pointer != nil {
		f.accepts(m, d.Desired)
	}
	if m.st.State == was.State && m.st.Seq == was.Seq && m.st.Attempt == was.Attempt {
		return false
	}
	f.says(m)
	return true
}

func (m *robot) obeys(d *api.Directive) {
	if d == nil || d.Serial <= m.serial {
		return
	}
	m.serial, m.st.DirectiveSerial = d.Serial, d.Serial
	switch {
	case d.Type == "retry":
		delete(m.denied, d.Seq)
		if m.st.State == api.Reverted {
			m.st.State = api.Staged
			m.st.Attempt += "r"
		}
	case d.Seq == m.st.Seq && (m.st.State == api.OK || m.st.State == api.Draining):
		m.st.State, m.st.Current, m.st.Profile, m.st.Confirmed = api.Reverted, m.before, m.before, m.before
		m.denied[d.Seq] = true
	}
}

func (f *fleet) accepts(m *robot, d *api.Desired) {
	f.t.Helper()
	head, err := signing.ParseHead(d.Pointer.Head.Payload)
	if err != nil {
		f.t.Fatal(err)
	}
	var e signing.Entry
	if err := json.Unmarshal(d.Pointer.Entry, &e); err != nil {
		f.t.Fatal(err)
	}
	if head.Seq < m.st.HighestSeq {
		f.t.Fatalf("%s is shown %d after %d", m.name, head.Seq, m.st.HighestSeq)
	}
	if !slices.Contains(m.shown, head.Seq) {
		m.shown = append(m.shown, head.Seq)
	}
	granted := d.Grant != nil && d.Grant.Seq == head.Seq
	switch {
	case m.st.Seq < head.Seq && m.st.State != api.Draining:
		m.st.Seq, m.st.HighestSeq, m.st.State, m.st.Attempt = head.Seq, head.Seq, api.Staged, fmt.Sprint(head.Seq)
		if m.st.Current == e.StorePath {
			m.st.State = api.OK
		}
	case m.st.State == api.Staged && granted:
		m.st.State = api.Draining
	case m.st.State == api.Draining && m.st.Seq == head.Seq:
		m.ran = append(m.ran, e.StorePath)
		if m.bad[e.StorePath] {
			m.st.State, m.denied[head.Seq] = api.Reverted, true
			return
		}
		m.before = m.st.Current
		m.st.State, m.st.Current, m.st.Profile, m.st.Confirmed = api.OK, e.StorePath, e.StorePath, e.StorePath
	}
}

// run are the hosts that run a system now, by number.
func (f *fleet) run(name string) string {
	var list []string
	for _, m := range f.robots {
		if m.st.Current == f.path(name) {
			list = append(list, strings.TrimPrefix(m.name, "web-"))
		}
	}
	return strings.Join(list, " ")
}

func (f *fleet) count(name string) int { return len(strings.Fields(f.run(name))) }

func (f *fleet) show() *rollout.Summary {
	f.t.Helper()
	s, err := f.s.Rollouts.Show("web", 0)
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

func (f *fleet) want(state rollout.State, system string, hosts int) {
	f.t.Helper()
	f.settle()
	s := f.show()
	if s.State != state || f.count(system) != hosts {
		text, _ := json.MarshalIndent(s, "", " ")
		f.t.Fatalf("release %d is %s (%s) and %d hosts run %s (%s); want %s and %d\n%s", s.Seq, s.State, s.Why, f.count(system), system, f.run(system), state, hosts, text)
	}
}

func (f *fleet) verb(verb string) error {
	s := f.show()
	return f.s.Rollouts.Verb(context.Background(), rollout.Verb{Channel: "web", Seq: s.Seq, Rev: s.Rev, Verb: verb, By: "op", Reason: "test"})
}

func (f *fleet) does(verb string) {
	f.t.Helper()
	if err := f.verb(verb); err != nil {
		f.t.Fatalf("%s: %v", verb, err)
	}
}

const threeWaves = `{"rollout":{"waves":[{"name":"canary","select":"canary=true","max":1,"bake":"10m"},{"max":"40%","bake":"5m"},{"max":"100%"}],"max_concurrency":"50%"}}`

// TestRolloutWaves: canary, then some, then all; with a restart in between.
func TestRolloutWaves(t *testing.T) {
	f := newFleet(t, 5)
	f.policy(threeWaves)
	f.want(rollout.Completed, "a", 5)
	f.promote(2, f.entry("*", f.systems["b"]))
	f.want(rollout.Running, "b", 1)
	if got := f.run("b"); got != "1" {
		t.Fatalf("the canary is %s", got)
	}
	f.later(9 * time.Minute)
	f.want(rollout.Running, "b", 1)
	f.restart()
	f.want(rollout.Running, "b", 1)
	f.later(time.Minute)
	f.want(rollout.Running, "b", 3) // the canary, and 40 % of 4
	f.restart()
	f.later(5 * time.Minute)
	f.want(rollout.Completed, "b", 5)
	for _, m := range f.robots {
		if len(m.ran) != 1 {
			t.Errorf("%s activated %v", m.name, m.ran)
		}
	}
	if s := f.show(); s.Total != 5 || s.Well != 5 || s.LastWell != 2 || len(s.Waves) != 3 {
		t.Errorf("%+v", s)
	}
}

// restart stops the server and starts it again; hosts poll anew.
func (f *fleet) restart() {
	f.t.Helper()
	f.world.restart()
	f.fresh()
}

// TestRolloutPicksWhoIsThere: a host that broke off seconds before a promote is not its first wave.
func TestRolloutPicksWhoIsThere(t *testing.T) {
	f := newFleet(t, 4)
	f.policy(`{"rollout":{"waves":[{"max":1},{}]}}`)
	off := slices.MinFunc(f.robots, func(a, b *robot) int { return cmp.Compare(roster.Turn(a.name, 2), roster.Turn(b.name, 2)) })
	f.s.hosts.Presence(off.name).Leave(f.now(), 1, true)
	off.away = true
	f.later(12500 * time.Millisecond)
	f.promote(2, f.entry("*", f.systems["b"]))
	f.want(rollout.Running, "b", 3)
	if s := f.show(); len(s.Waves) != 2 || s.Waves[0].Size != 1 {
		t.Errorf("the waves are %+v", s.Waves)
	}
}

// TestRolloutBadCanary: no other host activates what the canary goes back from, and
// without prefetch none is shown it.
func TestRolloutBadCanary(t *testing.T) {
	for name, prefetch := range map[string]string{"prefetch": "", "no prefetch": `,"prefetch":false`} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 4)
			f.policy(strings.Replace(threeWaves, `"max_concurrency":"50%"`, `"max_concurrency":"50%"`+prefetch, 1))
			f.robots[0].bad[f.path("b")] = true
			f.promote(2, f.entry("*", f.systems["b"]))
			f.want(rollout.Halted, "a", 4)
			for i, m := range f.robots {
				if ran := slices.Contains(m.ran, f.path("b")); ran != (i == 0) {
					t.Errorf("%s activated %v", m.name, m.ran)
				}
				if shown := slices.Contains(m.shown, 2); shown != (i == 0 || prefetch == "") {
					t.Errorf("%s was shown %v", m.name, m.shown)
				}
			}
			f.must(f.promoteAs(f.ci, 2, f.release(f.head(3), f.entry("*", f.systems["b"]))), 409, api.Quarantined, "narwharf quarantine clear")
			f.promote(3, f.entry("*", f.systems["c"])) // the fix
			f.want(rollout.Running, "c", 1)
			f.later(20 * time.Minute)
			f.settle()
			f.later(20 * time.Minute)
			f.want(rollout.Completed, "c", 4)
		})
	}
}

// TestRolloutRevertAll: a bad second wave takes back the first, too.
func TestRolloutRevertAll(t *testing.T) {
	f := newFleet(t, 5)
	f.policy(strings.Replace(threeWaves, `"max_concurrency":"50%"`, `"on_failure":"revert_all"`, 1))
	for _, m := range f.robots[1:] {
		m.bad[f.path("b")] = true
	}
	f.promote(2, f.entry("*", f.systems["b"]))
	f.want(rollout.Running, "b", 1)
	f.later(10 * time.Minute)
	f.want(rollout.Halted, "a", 5)
	if s := f.show(); s.Back != 1 || s.Bad == 0 || s.Why == "" {
		t.Errorf("%+v", s)
	}
}

// TestRolloutVerbs: pause, resume, advance, abort and what does not fit.
func TestRolloutVerbs(t *testing.T) {
	f := newFleet(t, 4)
	f.policy(`{"rollout":{"waves":[{"select":"canary","approve":true},{}]}}`)
	f.promote(2, f.entry("*", f.systems["b"]))
	f.want(rollout.Running, "b", 1)
	f.does(rollout.Pause)
	f.want(rollout.Paused, "b", 1)
	if err := f.verb(rollout.Advance); !isKindOf(err, api.Conflict) {
		t.Errorf("advance of what is paused: %v", err)
	}
	f.does(rollout.Resume)
	f.does(rollout.Advance)
	f.want(rollout.Completed, "b", 4)
	f.promote(3, f.entry("*", f.systems["c"]))
	f.want(rollout.Running, "c", 1)
	stale := rollout.Verb{Channel: "web", Seq: 2, Verb: rollout.Abort, By: "op"}
	if err := f.s.Rollouts.Verb(context.Background(), stale); !isKindOf(err, api.Conflict) {
		t.Errorf("abort of an older one: %v", err)
	}
	f.does(rollout.Abort)
	f.want(rollout.Aborted, "c", 0)
	if f.count("b") != 4 {
		t.Errorf("b runs on %s", f.run("b"))
	}
	events := f.must(f.do("GET", "/api/v1/events", f.op, nil), 200, "").body
	for _, kind := range []string{"rollout.planned", "rollout.running", "rollout.wave", "rollout.passed", "rollout.paused", "rollout.pause", "rollout.completed", "rollout.aborted", "rollout.hosts"} {
		if !strings.Contains(events, `"kind":"`+kind+`"`) {
			t.Errorf("the log has no %s", kind)
		}
	}
}

func isKindOf(err error, kind api.Kind) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Kind == kind
}

// TestRolloutSupersede: what a promote does while one is on its way.
func TestRolloutSupersede(t *testing.T) {
	policy := func(word string) string {
		return fmt.Sprintf(`{"rollout":{"waves":[{"select":"canary","approve":true},{}],"on_supersede":%q}}`, word)
	}
	t.Run("replace", func(t *testing.T) {
		f := newFleet(t, 3)
		f.policy(policy("replace"))
		f.promote(2, f.entry("*", f.systems["b"]))
		f.want(rollout.Running, "b", 1)
		f.promote(3, f.entry("*", f.systems["c"]))
		f.want(rollout.Running, "c", 1)
		f.does(rollout.Advance)
		f.want(rollout.Completed, "c", 3)
		if s, err := f.s.Rollouts.Show("web", 2); err != nil || s.State != rollout.Superseded {
			t.Errorf("release 2 is %+v, %v", s, err)
		}
	})
	t.Run("queue", func(t *testing.T) {
		f := newFleet(t, 3)
		f.policy(policy("queue"))
		f.promote(2, f.entry("*", f.systems["b"]))
		f.want(rollout.Running, "b", 1)
		f.promote(3, f.entry("*", f.systems["c"]))
		f.want(rollout.Running, "b", 1)
		if s := f.show(); s.Seq != 2 || s.Queued != 3 {
			t.Errorf("%+v", s)
		}
		f.restart()
		f.want(rollout.Running, "b", 1)
		f.does(rollout.Advance)
		f.want(rollout.Running, "c", 1)
		f.does(rollout.Advance)
		f.want(rollout.Completed, "c", 3)
	})
	t.Run("reject", func(t *testing.T) {
		f := newFleet(t, 3)
		f.policy(policy("reject"))
		f.promote(2, f.entry("*", f.systems["b"]))
		f.want(rollout.Running, "b", 1)
		f.must(f.promoteAs(f.ci, 2, f.release(f.head(3), f.entry("*", f.systems["c"]))), 409, api.InProgress, "on_supersede")
		f.does(rollout.Advance)
		f.want(rollout.Completed, "b", 3)
		f.promote(3, f.entry("*", f.systems["c"]))
		f.want(rollout.Running, "c", 1)
	})
}
