package hooks

import (
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
)

// hostAsks has an operator say something of a host and a release.
func (f *fleet) hostAsks(m *robot, what string, seq, status int, words ...string) api.Host {
	f.t.Helper()
	kind := api.Kind("")
	if status == 409 {
		kind = api.SeqConflict
	}
	f.must(f.do("POST", "/api/v1/hosts/"+m.name+"/"+what, f.op, map[string]int{"seq": seq}), status, kind, words...)
	f.settle()
	return decode[api.Host](f.t, f.must(f.do("GET", "/api/v1/hosts/"+m.name, f.op, nil), 200, ""))
}

// A host that goes back because an operator asked has made no error, whether roll-outs decide
// about it or not: nothing halts, no system is in quarantine, and the release went well.
func TestAnOperatorsRevertIsNoError(t *testing.T) {
	for name, policy := range map[string]string{"waves": `{"rollout":{"max_errors":0}}`, "everyone at once": `{"windows":[]}`} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 3)
			f.policy(policy)
			f.promote(2, f.entry("*", f.systems["b"]))
			f.settle()
			m := f.robots[1]
			h := f.hostAsks(m, "revert", 2, 200)
			if m.st.Current != f.path("a") || !h.Asked || h.Status.State != api.Reverted {
				t.Fatalf("it runs %s: %+v", m.st.Current, h)
			}
			if well := f.s.Fleet.Well("web"); well != 2 {
				t.Errorf("the last that went well is %d", well)
			}
			f.wantEvents("rollout.halted", 0, true)
			f.wantEvents("rollout.quarantined", 0, true)
			if policy != `{"windows":[]}` {
				f.want(rollout.Completed, "b", 2)
				if s := f.show(); s.Back != 1 || s.Bad != 0 {
					t.Errorf("%+v", s)
				}
			}
			f.restart()
			f.settle()
			if h := f.hostAsks(m, "retry", 2, 200); h.Asked || f.count("b") != 3 {
				t.Errorf("after the retry it runs %s: %+v", m.st.Current, h)
			}
			m.st.State, m.st.Current, m.st.Profile = api.Reverted, f.path("a"), f.path("a")
			m.st.Attempt += "again"
			f.says(m) // by itself, now
			f.settle()
			if h := decode[api.Host](t, f.must(f.do("GET", "/api/v1/hosts/"+m.name, f.op, nil), 200, "")); h.Asked {
				t.Errorf("what it did by itself was asked for: %+v", h)
			}
			if policy != `{"windows":[]}` {
				f.want(rollout.Halted, "b", 2)
			}
		})
	}
}

// An abort's call-back is one, too, for those who count what hosts ended with.
func TestACallBackIsNoError(t *testing.T) {
	f := newFleet(t, 3)
	f.policy(`{"rollout":{"waves":[{"select":"canary","approve":true},{}]}}`)
	f.promote(2, f.entry("*", f.systems["b"]))
	f.want(rollout.Running, "b", 1)
	f.does(rollout.Abort)
	f.want(rollout.Aborted, "b", 0)
	h := decode[api.Host](t, f.must(f.do("GET", "/api/v1/hosts/web-1", f.op, nil), 200, ""))
	if !h.Asked || h.Status.State != api.Reverted {
		t.Errorf("%+v", h)
	}
	if ends := decode[struct {
		Hosts map[string]map[api.State]int
	}](t, f.must(f.do("GET", "/api/v1/channels/web/history?hosts=1", f.op, nil), 200, "")).Hosts; ends["2"][api.Reverted] != 0 {
		t.Errorf("hosts ended with %v", ends)
	}
}

// Under waves an operator speaks of the release that the host is shown.
func TestDirectivesAreAboutWhatIsShown(t *testing.T) {
	f := newFleet(t, 3)
	f.policy(`{"rollout":{"waves":[{"select":"canary","approve":true},{}],"prefetch":false}}`)
	f.promote(2, f.entry("*", f.systems["b"]))
	f.want(rollout.Running, "b", 1)
	f.does(rollout.Advance)
	f.want(rollout.Completed, "b", 3)
	f.promote(3, f.entry("*", f.systems["c"]))
	f.want(rollout.Running, "c", 1)
	m := f.robots[2] // it is shown release 2 still
	if h := decode[api.Host](t, f.must(f.do("GET", "/api/v1/hosts/web-3", f.op, nil), 200, "")); h.WantedSeq != 3 || h.ShownSeq != 2 {
		t.Fatalf("%+v", h)
	}
	f.hostAsks(m, "revert", 3, 409, "it is seq 2 now")
	if h := f.hostAsks(m, "revert", 2, 200); !h.Asked || m.st.Current != f.path("a") {
		t.Fatalf("it runs %s: %+v", m.st.Current, h)
	}
	f.later(time.Minute)
	f.does(rollout.Advance)
	f.want(rollout.Completed, "c", 3)
}
