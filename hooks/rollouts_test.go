package hooks

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/plan"
	"narwharf/hooks/api/policy"
	"narwharf/hooks/api/rollouts"
	"narwharf/hooks/rollout"
)

const theRollout = "/api/v1/rollouts/web"

// What people see of a roll-out, and what they say to it.
func TestRolloutOverHTTP(t *testing.T) {
	f := newFleet(t, 5)
	f.must(f.do("GET", theRollout, f.admin, nil), 404, api.NotFound, "narwharf channel policy web")
	f.policy(threeWaves)
	f.promote(2, f.entry("*", f.systems["b"]))
	f.want(rollout.Running, "b", 1)
	read, operator := f.token("reader", "read:web"), f.token("operator", "operate:web")
	say := func(verb, body string, header ...string) answer {
		t.Helper()
		return f.do("POST", theRollout+"/"+verb, operator, json.RawMessage(body), header...)
	}
	a := f.must(f.do("GET", theRollout, read, nil), 200, "")
	s := decode[rollout.Summary](t, a)
	if s.Channel != "web" || s.Seq != 2 || s.State != rollout.Running || len(s.Waves) != 3 || s.Waves[0].Name != "canary" || s.Total != 5 || len(a.body) > 16<<10 {
		t.Fatalf("%s", a)
	}
	if a := f.do("GET", theRollout, read, nil, "If-None-Match", a.header.Get("Etag")); a.status != 304 {
		t.Errorf("what is as it was: %s", a)
	}
	f.must(f.do("GET", theRollout+"/1", read, nil), 200, "", `"state":"completed"`)
	f.must(f.do("GET", theRollout+"/9", read, nil), 404, api.NotFound)
	f.must(f.do("GET", theRollout+"/x", read, nil), 400, api.BadRequest)
	list := f.must(f.do("GET", "/api/v1/rollouts", read, nil), 200, "")
	if l := decode[struct{ Rollouts []rollout.Summary }](t, list).Rollouts; len(l) != 1 || l[0].Seq != 2 {
		t.Errorf("the list is %s", list)
	}
	f.must(f.do("GET", "/api/v1/rollouts", f.token("other", "read:db"), nil), 200, "", `{"rollouts":[]}`)
	f.must(f.do("GET", theRollout, f.token("other2", "read:db"), nil), 403, api.Forbidden)
	f.must(f.do("POST", theRollout+"/pause", read, json.RawMessage(`{"seq":2}`)), 403, api.Forbidden, "operate:web")

	f.must(say("pause", `{}`), 400, api.BadRequest)
	f.must(say("pause", `{"sequence":2}`), 400, api.BadRequest, "sequence")
	f.must(say("pause", `{"reason":"x"}`), 400, api.BadRequest, "narwharf rollout show web")
	f.must(say("pause", `{"seq":1}`), 409, api.Conflict)
	f.must(say("pause", `{"seq":2}`, "If-Match", `"x"`), 400, api.BadRequest)
	f.must(say("pause", `{"seq":2}`, "If-Match", `"1"`), 409, api.Conflict, "changed meanwhile")
	f.must(say("abort", `{"seq":2}`), 400, api.BadRequest, "narwharf rollout abort web --reason")
	f.must(say("skip", `{"seq":2,"reason":" "}`), 400, api.BadRequest, "narwharf rollout skip web --reason")
	f.must(say("advance", `{"seq":2,"reason":"looks good"}`), 409, api.Conflict, "skip ends it as it is")
	f.must(say("pause", `{"seq":2,"host":"web-1"}`), 400, api.BadRequest, "narwharf host hold web-1")
	s = decode[rollout.Summary](t, f.must(say("pause", `{"seq":2,"reason":"lunch"}`, "If-Match", fmt.Sprintf("%q", fmt.Sprint(f.show().Rev))), 200, ""))
	if s.State != rollout.Paused || !strings.Contains(s.Why, "lunch") {
		t.Errorf("paused it is %s (%s)", s.State, s.Why)
	}
	f.must(say("resume", `{"seq":2}`), 200, "", `"state":"running"`)
	f.must(say("skip", `{"seq":2,"reason":"known flake"}`), 200, "")
	f.want(rollout.Running, "b", 3)
	f.must(say("abort", `{"seq":2,"reason":"wrong branch"}`), 200, "", `"state":"aborting"`)
	f.want(rollout.Aborted, "b", 0)
	events := f.must(f.do("GET", "/api/v1/events?channel=web", f.admin, nil), 200, "")
	for _, words := range []string{"lunch", "known flake", "wrong branch", "operator"} {
		if !strings.Contains(events.body, words) {
			t.Errorf("the audit log does not say %q", words)
		}
	}
}

// Who watches is woken.
func TestRolloutIsWatched(t *testing.T) {
	f := newFleet(t, 5)
	f.policy(threeWaves)
	f.promote(2, f.entry("*", f.systems["b"]))
	f.want(rollout.Running, "b", 1)
	etag := f.must(f.do("GET", theRollout, f.admin, nil), 200, "").header.Get("Etag")
	done := make(chan answer)
	go func() {
		a, err := f.try("GET", theRollout, f.admin, nil, "If-None-Match", etag, "Prefer", "wait=30")
		if err != nil {
			t.Error(err)
		}
		done <- a
	}()
	f.parked(1)
	f.does(rollout.Pause)
	f.later(2 * time.Second)
	f.settle()
	select {
	case a := <-done:
		if s := decode[rollout.Summary](t, a); s.State != rollout.Paused {
			t.Errorf("woken it sees %s", s.State)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nobody woke it")
	}
}

func TestLimitsOverHTTP(t *testing.T) {
	f := newFleet(t, 4)
	f.policy(`{"rollout":{}}`)
	put := func(path, body string) answer {
		t.Helper()
		return f.do("PUT", "/api/v1/"+path, f.admin, json.RawMessage(body))
	}
	f.must(f.do("PUT", "/api/v1/budgets/web", f.token("operator", "operate:web"), json.RawMessage(`{"max_unavailable":1}`)), 403, api.Forbidden)
	f.must(put("budgets/web", `{}`), 400, api.BadRequest)
	f.must(put("budgets/web", `{"select":"role=web"}`), 400, api.BadRequest, "narwharf hold set")
	f.must(put("budgets/web", `{"max_unavailable":"x"}`), 400, api.BadRequest)
	f.must(put("budgets/-", `{"max_unavailable":1}`), 400, api.BadRequest, "is no name")
	b := decode[rollouts.Budget](t, f.must(put("budgets/web", `{"max_unavailable":"50%"}`), 200, ""))
	if b.Name != "web" || b.Hosts != 4 || b.MaxUnavailable.String() != "50%" {
		t.Errorf("%+v", b)
	}
	f.must(f.do("GET", "/api/v1/budgets", f.token("reader", "read:db"), nil), 200, "", `"max_unavailable":"50%"`)
	f.must(f.do("GET", "/api/v1/budgets/web", f.admin, nil), 200, "", `"hosts":4`)
	f.must(f.do("DELETE", "/api/v1/budgets/web", f.admin, nil), 204, "")
	f.must(f.do("GET", "/api/v1/budgets/web", f.admin, nil), 404, api.NotFound)
	f.must(f.do("DELETE", "/api/v1/budgets/web", f.admin, nil), 404, api.NotFound)

	f.must(put("holds/fra", `{"reason":"it moves"}`), 400, api.BadRequest, "narwharf freeze")
	f.must(put("holds/fra", `{"select":"site=fra"}`), 422, api.Invalid, "reason")
	f.must(put("holds/fra", `{"select":"site=fra","reason":"it moves","until":"2001-01-01T00:00:00Z"}`), 400, api.BadRequest, "over already")
	f.must(put("holds/fra", `{"select":"site==fra","reason":"it moves"}`), 400, api.BadRequest, "label=value")
	f.must(put("holds/canary", `{"select":"canary=true","reason":"it moves"}`), 200, "", `"by":"admin"`)
	f.must(f.do("GET", "/api/v1/holds", f.admin, nil), 200, "", `"name":"canary"`)
	f.promote(2, f.entry("*", f.systems["b"]))
	f.settle()
	if got := f.run("b"); strings.Contains(got, "1") || f.count("b") != 3 {
		t.Errorf("with the canary held these run it: %s", got)
	}
	p := decode[plan.Plan](t, f.must(f.do("GET", "/api/v1/channels/web/plan", f.admin, nil), 200, ""))
	if p.Changing != 1 || p.Held != 1 || p.List[0].Held != "it moves" || !p.Waved || len(p.Waves) != 1 {
		t.Errorf("the plan is %+v", p)
	}
	f.must(f.do("DELETE", "/api/v1/holds/canary", f.admin, nil), 204, "")
	f.want(rollout.Completed, "b", 4)

	f.must(f.do("GET", "/api/v1/freeze", f.token("reader2", "read:web"), nil), 200, "", `{"frozen":false}`)
	f.must(put("freeze", `{}`), 400, api.BadRequest)
	f.must(put("freeze", `{"select":"a=b","reason":"x"}`), 400, api.BadRequest, "narwharf hold set")
	f.must(put("freeze", `{"reason":"incident 7"}`), 200, "", `"frozen":true`)
	f.promote(3, f.entry("*", f.systems["a"]))
	f.settle()
	if f.count("a") != 0 {
		t.Errorf("in a freeze these run it: %s", f.run("a"))
	}
	f.must(f.do("GET", "/api/v1/channels/web/plan", f.admin, nil), 200, "", `"frozen":"incident 7"`)
	f.must(f.do("DELETE", "/api/v1/freeze", f.admin, nil), 200, "", `{"frozen":false}`)
	f.must(f.do("DELETE", "/api/v1/freeze", f.admin, nil), 200, "", `{"frozen":false}`)
	f.want(rollout.Completed, "a", 4)
}

func TestQuarantineOverHTTP(t *testing.T) {
	f := newFleet(t, 3)
	f.policy(`{"rollout":{"max_concurrency":1}}`)
	for _, m := range f.robots {
		m.bad[f.path("b")] = true
	}
	f.promote(2, f.entry("*", f.systems["b"]))
	f.want(rollout.Halted, "b", 0)
	base := strings.TrimPrefix(f.path("b"), "/nix/store/")
	f.must(f.do("GET", "/api/v1/quarantine", f.admin, nil), 200, "", f.path("b"))
	f.must(f.do("GET", "/api/v1/quarantine", f.token("other", "read:db"), nil), 200, "", `{"quarantined":[]}`)
	f.must(f.do("GET", "/api/v1/quarantine/"+base, f.token("other2", "read:db"), nil), 404, api.NotFound)
	f.must(f.do("GET", "/api/v1/quarantine/"+base[:32], f.admin, nil), 200, "", `"hosts":1`)
	p := decode[plan.Plan](t, f.must(f.do("GET", "/api/v1/channels/web/plan?to="+f.path("b"), f.admin, nil), 200, ""))
	if p.Refused == nil || p.Refused.Kind != string(api.Quarantined) || p.Quarantined != 3 || p.Steps[0].Quarantined == "" {
		t.Errorf("the plan is %+v", p)
	}
	r := f.release(f.head(3), f.entry("*", f.systems["b"]))
	f.must(f.do("PUT", "/api/v1/channels/web?dry_run=1", f.ci, api.Promotion{Release: *r}, "If-Match", `"2"`), 409, api.Quarantined)
	f.must(f.do("DELETE", "/api/v1/quarantine/none", f.admin, nil), 404, api.NotFound, "narwharf quarantine list")
	f.must(f.do("DELETE", "/api/v1/quarantine/"+base, f.admin, nil), 204, "")
	f.must(f.do("GET", "/api/v1/quarantine", f.admin, nil), 200, "", `{"quarantined":[]}`)
	answer := decode[api.Promoted](t, f.must(f.do("PUT", "/api/v1/channels/web?dry_run=1", f.ci, api.Promotion{Release: *r}, "If-Match", `"2"`), 200, ""))
	if answer.Plan == nil || answer.Plan.Seq != 3 || answer.Plan.Changing != 3 || len(answer.Plan.Waves) != 1 {
		t.Errorf("a dry run says %+v", answer.Plan)
	}
}

// A policy is checked in words, and what it may not mean is said.
func TestPolicyWords(t *testing.T) {
	f := newFleet(t, 3)
	put := func(text string) answer {
		t.Helper()
		return f.do("PUT", "/api/v1/channels/web/policy", f.admin, json.RawMessage(text))
	}
	f.must(put(`{"rollout":{"after":[{"first":"role=db","then":"role=app"},{"first":"role=app","then":"role=db"}]}}`), 400, api.BadRequest, "after is a circle")
	f.must(put(`{"rollout":{"waves":[{"max":"100%"},{"max":1}]}}`), 400, api.BadRequest, "nobody is left for wave 2")
	f.must(put(`{"rollout":{"wave":[]}}`), 400, api.BadRequest, "wave")
	set := decode[policy.Set](t, f.must(put(`{"rollout":{"waves":[{"select":"canry=true","max":1},{"max":"100%"}]}}`), 200, ""))
	if len(set.Warnings) != 1 || !strings.Contains(set.Warnings[0], "no host has the label canry") || set.Rollout == nil {
		t.Errorf("it says %+v", set)
	}
	f.must(put(`{"windows":[]}`), 200, "", "{}")
}
