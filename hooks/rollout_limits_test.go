package hooks

import (
	"context"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/cache/root"
	"narwharf/cache/state"
	"narwharf/hooks/api"
	"narwharf/hooks/channel"
	"narwharf/hooks/host"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/policy"
)

// waits is what a robot is told to wait for.
func (f *fleet) waits(m *robot) api.WaitKind {
	f.t.Helper()
	a, err := f.s.Fleet.For(m.name, "web", m.name, api.Have{Seq: m.st.HighestSeq, Keys: -1})
	if err != nil {
		f.t.Fatal(err)
	}
	if a.WaitingFor == nil {
		return ""
	}
	return a.WaitingFor.Kind
}

// TestFreezeAndHolds: they hold back hosts of channels with roll-outs and of those without.
func TestFreezeAndHolds(t *testing.T) {
	ctx := context.Background()
	for name, rules := range map[string]string{"with roll-outs": `{"rollout":{}}`, "without": `{"windows":[]}`} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 3)
			f.policy(rules)
			until := f.now().Add(time.Hour)
			if err := f.s.Rollouts.SetFreeze(ctx, &rollout.Hold{Reason: "year's end", Until: until}, "op"); err != nil {
				t.Fatal(err)
			}
			f.promote(2, f.entry("*", f.systems["b"]))
			f.settle()
			if f.count("b") != 0 || f.waits(f.robots[0]) != api.WaitFreeze {
				t.Fatalf("in a freeze %s run b, and the first waits for %s", f.run("b"), f.waits(f.robots[0]))
			}
			if err := f.s.Rollouts.SetHold(ctx, "look", &rollout.Hold{Reason: "we look at it", Select: policy.MustSelect("canary")}, "op"); err != nil {
				t.Fatal(err)
			}
			f.later(time.Hour)
			f.settle()
			if f.run("b") != "2 3" || f.waits(f.robots[0]) != api.WaitHold {
				t.Fatalf("%s run b, and the held one waits for %s", f.run("b"), f.waits(f.robots[0]))
			}
			if l := f.s.Rollouts.Limits(); l.Freeze != nil || len(l.Holds) != 1 {
				t.Errorf("%+v", l)
			}
			if err := f.s.Rollouts.SetHold(ctx, "look", nil, "op"); err != nil {
				t.Fatal(err)
			}
			f.settle()
			if f.count("b") != 3 {
				t.Fatalf("%s run b", f.run("b"))
			}
		})
	}
}

// TestLimitsAreChecked: what nobody could mean is refused, with words.
func TestLimitsAreChecked(t *testing.T) {
	f := newFleet(t, 1)
	ctx, d := context.Background(), f.s.Rollouts
	for name, c := range map[string]struct {
		err  error
		kind api.Kind
	}{
		"a name":               {d.SetBudget(ctx, "a b", &rollout.Budget{}, "op"), api.Invalid},
		"no budget":            {d.SetBudget(ctx, "web", nil, "op"), api.NotFound},
		"a hold for no reason": {d.SetHold(ctx, "web", &rollout.Hold{}, "op"), api.Invalid},
		"no hold":              {d.SetHold(ctx, "web", nil, "op"), api.NotFound},
		"freeze for no reason": {d.SetFreeze(ctx, &rollout.Hold{Reason: " "}, "op"), api.Invalid},
		"no freeze":            {d.SetFreeze(ctx, nil, "op"), api.NotFound},
		"no quarantine":        {d.Clear(ctx, "/nix/store/x", "op"), api.NotFound},
		"no roll-out":          {d.Verb(ctx, rollout.Verb{Channel: "web", Seq: 1, Verb: rollout.Pause}), api.NotFound},
	} {
		if !isKindOf(c.err, c.kind) {
			t.Errorf("%s: %v, want %s", name, c.err, c.kind)
		}
	}
	if _, err := d.Show("web", 0); !isKindOf(err, api.NotFound) {
		t.Errorf("a roll-out of a channel without: %v", err)
	}
}

// TestBudget: no more hosts of a budget are unavailable than it lets.
func TestBudget(t *testing.T) {
	f := newFleet(t, 5)
	one, err := policy.ParseAmount("1")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.s.Rollouts.SetBudget(context.Background(), "all", &rollout.Budget{MaxUnavailable: one}, "op"); err != nil {
		t.Fatal(err)
	}
	f.policy(`{"rollout":{}}`)
	f.restart()
	f.promote(2, f.entry("*", f.systems["b"]))
	for f.count("b") < 5 {
		f.s.Rollouts.Begin()
		for _, m := range f.robots {
			f.step(m)
			n := f.show().InFlight
			if size, taken := f.s.Rollouts.BudgetUse("all"); n > 1 || taken > 1 || size != 5 {
				t.Fatalf("%d hosts are on their way; the budget counts %d of %d", n, taken, size)
			}
		}
	}
	f.want(rollout.Completed, "b", 5)
}

// TestRequires: a channel takes what was proven on another, and says what is missing.
func TestRequires(t *testing.T) {
	for _, rules := range []string{`{"requires":{"channel":"staging"}}`, `{"rollout":{},"requires":{"channel":"staging"}}`} {
		f := newFleet(t, 2)
		f.policy(rules)
		r := f.release(f.head(2), f.entry("*", f.systems["b"]))
		f.must(f.promoteAs(f.ci, 1, r), 409, api.NotProven, "staging")
		f.must(f.do("PUT", "/api/v1/channels/web?dry_run=1", f.ci, &api.Promotion{Release: *r}, "If-Match", `"1"`), 409, api.NotProven)
		now := "/api/v1/channels/web?now=1&reason=" + url.QueryEscape("CVE-2026-1")
		f.must(f.do("PUT", now, f.ci, &api.Promotion{Release: *r}, "If-Match", `"1"`), 403, api.Forbidden, "operate")
		both := f.token("both", "promote:web", "operate:web")
		f.must(f.do("PUT", "/api/v1/channels/web?now=1", both, &api.Promotion{Release: *r}, "If-Match", `"1"`), 400, api.BadRequest, "reason")
		f.must(f.do("PUT", now, both, &api.Promotion{Release: *r}, "If-Match", `"1"`), 200, "")
		f.settle()
		if f.count("b") != 2 {
			t.Errorf("%s: %s run b", rules, f.run("b"))
		}
	}
}

// TestNow: a release goes past waves and bakes, and not past max_concurrency.
func TestNow(t *testing.T) {
	f := newFleet(t, 5)
	f.policy(threeWaves)
	both := f.token("both", "promote:web", "operate:web")
	r := f.release(f.head(2), f.entry("*", f.systems["b"]))
	f.must(f.do("PUT", "/api/v1/channels/web?now=1&reason=fix", both, &api.Promotion{Release: *r}, "If-Match", `"1"`), 200, "")
	f.want(rollout.Completed, "b", 5)
	if s := f.show(); !s.Now || len(s.Waves) != 1 {
		t.Errorf("%+v", s)
	}
	if log := f.must(f.do("GET", "/api/v1/events", f.op, nil), 200, "").body; !strings.Contains(log, "past waves, bakes and checks, says both: fix") {
		t.Errorf("the log does not say who was in a hurry, and why: %s", log)
	}
}

// rows are what is stored of roll-outs.
func (f *fleet) rows() string {
	f.t.Helper()
	var all strings.Builder
	for _, bucket := range []string{"channel", "run", "host", "quarantine", "lease"} {
		err := f.db.Scan(f.t.Context(), "hooks/rollout/"+bucket, state.Range{}, func(page []state.Entry) error {
			for _, e := range page {
				all.WriteString(bucket + " " + e.Key + " " + string(e.Value) + "\n")
			}
			return nil
		})
		if err != nil {
			f.t.Fatal(err)
		}
	}
	return all.String()
}

// TestUngoverned: a channel without roll-outs has no rows; one that loses its policy goes on
// as such, and has them again with the next.
func TestUngoverned(t *testing.T) {
	f := newFleet(t, 3)
	f.promote(2, f.entry("*", f.systems["b"]))
	f.settle()
	if rows := f.rows(); rows != "" || f.count("b") != 3 {
		t.Fatalf("%s run b, and there are rows:\n%s", f.run("b"), rows)
	}
	f.policy(threeWaves)
	f.want(rollout.Completed, "b", 3)
	f.promote(3, f.entry("*", f.systems["c"]))
	f.want(rollout.Running, "c", 1)
	f.policy(`{"windows":[]}`)
	f.settle()
	if f.count("c") != 3 || f.s.Rollouts.Governs("web") || strings.Contains(f.rows(), "\nhost ") {
		t.Fatalf("%s run c, and there are rows:\n%s", f.run("c"), f.rows())
	}
	f.promote(4, f.entry("*", f.systems["d"]))
	f.settle()
	f.restart()
	f.settle()
	if f.count("d") != 3 {
		t.Fatalf("%s run d", f.run("d"))
	}
	f.policy(threeWaves)
	f.want(rollout.Completed, "d", 3)
	f.promote(5, f.entry("*", f.systems["a"]))
	f.want(rollout.Running, "a", 1)
}

// TestPolicyAtOnce: limits of a policy count at once, waves with the next roll-out; what is
// said of an older policy is refused.
func TestPolicyAtOnce(t *testing.T) {
	f := newFleet(t, 5)
	f.policy(`{"rollout":{"waves":[{"select":"canary","approve":true},{}],"max_concurrency":1}}`)
	f.promote(2, f.entry("*", f.systems["b"]))
	f.want(rollout.Running, "b", 1)
	f.policy(`{"rollout":{"max_concurrency":3}}`)
	if s := f.show(); len(s.Waves) != 2 || s.Policy.MaxConcurrency.N != 3 {
		t.Errorf("%+v", s.Policy)
	}
	text := json.RawMessage(`{"rollout":{"max_concurrency":4}}`)
	f.must(f.do("PUT", "/api/v1/channels/web/policy", f.op, text, "If-Match", `"other"`), 412, api.RaceLost)
	if s := f.show(); s.Policy.MaxConcurrency.N != 3 {
		t.Errorf("%+v", s.Policy)
	}
	f.does(rollout.Advance)
	f.want(rollout.Completed, "b", 5)
}

// TestRowsAreLost: what was decided is not known any more: a person says whether it goes on.
func TestRowsAreLost(t *testing.T) {
	f := newFleet(t, 3)
	f.policy(threeWaves)
	f.promote(2, f.entry("*", f.systems["b"]))
	f.want(rollout.Running, "b", 1)
	f.halt()
	err := f.db.Update(t.Context(), nil, func(tx state.Tx) error { return tx.Clear("hooks/rollout") })
	if err != nil {
		t.Fatal(err)
	}
	f.serve(f.db)
	f.fresh()
	f.want(rollout.Paused, "b", 1)
	f.does(rollout.Resume)
	f.later(time.Hour)
	f.settle()
	f.later(time.Hour)
	f.want(rollout.Completed, "b", 3)
}

// TestNewMachine: it is given the newest release that completed, at once, while another is
// on its way.
func TestNewMachine(t *testing.T) {
	f := newFleet(t, 3)
	f.policy(threeWaves)
	f.promote(2, f.entry("*", f.systems["b"]))
	f.want(rollout.Running, "b", 1)
	m := &robot{name: "web-9", bad: map[string]bool{}, denied: map[int64]bool{}}
	m.st = api.Status{Channel: "web", Agent: "1.0", StartID: 1, Target: m.name, System: "x86_64-linux", BootID: "boot-9", State: api.Idle, Current: "/nix/store/image", Profile: "/nix/store/image"}
	f.robots = append(f.robots, m)
	if a, err := f.s.Fleet.For(m.name, "web", m.name, api.Have{Keys: -1}); err != nil || a.Grant != nil || a.Seq != 1 {
		t.Fatalf("before its first report it is told %+v, %v", a, err)
	}
	f.says(m)
	f.want(rollout.Running, "b", 1)
	if m.st.Current != f.path("a") || m.st.State != api.Staged {
		t.Errorf("it runs %s and is %s", m.st.Current, m.st.State)
	}
}

// TestRolloutPeople: a host that is held, one that is removed, and a channel that is deleted
// while a release goes out.
func TestRolloutPeople(t *testing.T) {
	f := newFleet(t, 4)
	f.policy(`{"rollout":{"max_concurrency":1}}`)
	f.patch(f.robots[0], &host.Patch{Hold: &api.Hold{Reason: "a disk is replaced"}})
	f.robots[1].away = true // it polls, and does nothing more
	f.promote(2, f.entry("*", f.systems["b"]))
	f.settle()
	if f.run("b") != "3 4" && f.run("b") != "" {
		t.Fatalf("%s run b", f.run("b"))
	}
	f.must(f.do("DELETE", "/api/v1/hosts/web-2", f.op, nil), 204, "")
	f.robots = slices.Delete(f.robots, 1, 2)
	f.settle()
	if f.run("b") != "3 4" || f.waits(f.robots[0]) != api.WaitHold {
		t.Fatalf("%s run b, the held one waits for %s", f.run("b"), f.waits(f.robots[0]))
	}
	f.patch(f.robots[0], &host.Patch{Unhold: true})
	f.want(rollout.Completed, "b", 3)
	f.policy(threeWaves)
	f.promote(3, f.entry("*", f.systems["c"]))
	f.want(rollout.Running, "c", 1)
	f.must(f.do("DELETE", "/api/v1/channels/web", f.admin, nil, "If-Match", `"3"`), 204, "")
	f.want(rollout.Paused, "c", 1)
	f.later(24 * time.Hour)
	f.want(rollout.Paused, "c", 1)
	f.must(f.promoteAs(f.admin, 3, f.release(f.head(4), f.entry("*", f.systems["d"]))), 200, "")
	f.want(rollout.Running, "d", 1)
}

// TestRolloutRoots: what a roll-out is about stays, however many releases were promoted since.
func TestRolloutRoots(t *testing.T) {
	f := newFleet(t, 2)
	f.policy(`{"rollout":{"waves":[{"select":"canary","approve":true},{}],"on_supersede":"queue"}}`)
	f.promote(2, f.entry("*", f.systems["b"]))
	f.want(rollout.Running, "b", 1)
	for seq := int64(3); seq < 16; seq++ {
		f.promote(seq, f.entry("*", f.systems[[]string{"c", "d"}[seq%2]]))
	}
	if err := f.s.Retain.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	for seq, stays := range map[int64]bool{1: true, 2: true, 3: false, 4: false, 15: true} {
		err := f.db.View(t.Context(), func(tx state.Reader) error {
			paths, err := root.Owner(tx, channel.RootOwner("web", seq))
			if len(paths) > 0 != stays {
				t.Errorf("release %d has the roots %v, want some: %v", seq, paths, stays)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	f.does(rollout.Advance)
	f.want(rollout.Running, "c", 0) // 15 is d
	if s := f.show(); s.Seq != 15 {
		t.Errorf("%+v", s)
	}
}
