package hooks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"narwharf/hooks/api"
	"narwharf/signing"
)

// The six ways in which a server that infers a host's state from snapshots is
// wrong (RIVALS.md, section 1), as properties of what this server shows. The
// host's half is nixos/world_bugs_test.go, that of promote --wait cmd/narwharf/wait_test.go.

// bugs is a world in which hosts report anything in any order.
type bugs struct {
	*world
	seq   int64
	paths []string // of systems; the last is in no release
	wants string   // path of the last release
	names int
}

func newBugs(t *testing.T) *bugs {
	b := &bugs{world: newWorld(t)}
	for _, name := range []string{"a", "b", "c"} {
		b.paths = append(b.paths, b.system(name).In("/nix/store"))
	}
	b.next(0)
	return b
}

// next promotes a system to all hosts.
func (b *bugs) next(system int) {
	b.t.Helper()
	b.seq++
	b.wants = b.paths[system]
	b.promote(b.seq, b.entry("*", b.system([]string{"a", "b"}[system])))
}

// host is a name that was never used.
func (b *bugs) newHost() string {
	b.names++
	return fmt.Sprintf("h%d", b.names)
}

// ask is a request without a network.
func (b *bugs) ask(method, path, token string, body any) answer {
	text, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	req := httptest.NewRequest(method, path, bytes.NewReader(text))
	req.Header.Set("Authorization", "Bearer "+token)
	rec := httptest.NewRecorder()
	b.s.ServeHTTP(rec, req)
	return answer{status: rec.Code, header: rec.Header(), body: rec.Body.String()}
}

func (b *bugs) say(host string, s *api.Status) answer {
	return b.ask("PUT", "/api/v1/hosts/"+host+"/status", b.world.host, s)
}

func (b *bugs) show(host string) api.Host {
	b.t.Helper()
	return decode[api.Host](b.t, b.ask("GET", "/api/v1/hosts/"+host, b.op, nil))
}

// anyStatus is a report that an agent might send, or one with a bug.
func (b *bugs) anyStatus(rt *rapid.T) *api.Status {
	path := func(what string) string { return rapid.SampledFrom(b.paths).Draw(rt, what) }
	s := &api.Status{
		Agent: "test", StartID: rapid.Int64Range(1, 2).Draw(rt, "start"), Counter: rapid.Int64Range(1, 6).Draw(rt, "counter"),
		Channel: "web", Target: "web-1", BootID: "b-1", State: rapid.SampledFrom(api.States).Draw(rt, "state"),
		Seq: rapid.Int64Range(max(b.seq-1, 0), b.seq).Draw(rt, "seq"), Attempt: rapid.SampledFrom([]string{"", "t1", "t2"}).Draw(rt, "attempt"),
		Action: string(rapid.SampledFrom(signing.Actions).Draw(rt, "action")), Wanted: rapid.SampledFrom(append([]string{""}, b.paths...)).Draw(rt, "wanted"),
		Current: path("current"), Booted: path("booted"), Profile: path("profile"),
	}
	for i := range rapid.IntRange(0, 2).Draw(rt, "checks") {
		s.Checks = append(s.Checks, api.Check{Name: fmt.Sprint("c", i), Mode: api.Enforce, OK: rapid.Bool().Draw(rt, "ok"), Duration: 5})
	}
	if rapid.Bool().Draw(rt, "durations") {
		s.Durations = map[string]int64{"total": rapid.Int64Range(1, 90_000).Draw(rt, "total")}
	}
	return s
}

// takes sends a report and tells whether it is what the server has now.
func (b *bugs) takes(rt *rapid.T, host string, last, s *api.Status) bool {
	stale := last != nil && (s.StartID < last.StartID || s.StartID == last.StartID && s.Counter <= last.Counter)
	a := b.say(host, s)
	switch {
	case a.status == 400, a.status == 409 && stale, a.status == 204 && reflect.DeepEqual(s, last):
		return false
	case a.status == 204 && !stale:
		return true
	}
	rt.Fatalf("after %+v the report %+v got %s", last, s, a)
	return false
}

// Class 1, "stale current": after a revert the server showed the bad system
// until the next check-in. Here what is shown is the last report, from the moment
// it is acknowledged, and no older one comes back.
func TestClass1ShownIsTheLastReport(t *testing.T) {
	b := newBugs(t)
	rapid.Check(t, func(rt *rapid.T) {
		host := b.newHost()
		var last *api.Status
		for range rapid.IntRange(1, 8).Draw(rt, "reports") {
			if s := b.anyStatus(rt); b.takes(rt, host, last, s) {
				last = s
			}
			if last == nil {
				continue
			}
			if got := b.show(host).Status; !reflect.DeepEqual(got, last) {
				rt.Fatalf("shown is %+v, reported was %+v", got, last)
			}
		}
	})
}

// Class 2, "old passes open new gates": passes of the system before counted for
// the new one. Here nothing that was said about one release, or in one attempt,
// is shown with or counted for another.
func TestClass2OldPassesCountForNothing(t *testing.T) {
	b := newBugs(t)
	rapid.Check(t, func(rt *rapid.T) {
		host := b.newHost()
		good := func(counter int64) *api.Status {
			return &api.Status{StartID: 1, Counter: counter, Channel: "web", Target: host, BootID: "b-1", State: api.OK, Seq: b.seq, Attempt: fmt.Sprint("t", b.seq),
				Wanted: b.wants, Current: b.wants, Booted: b.wants, Profile: b.wants, Confirm: "n", Checks: []api.Check{{Name: "c", Mode: api.Enforce, OK: true}}}
		}
		if a := b.say(host, good(1)); a.status != 204 || !b.show(host).Converged {
			rt.Fatalf("not converged by %s", a)
		}
		b.next(rapid.IntRange(0, 1).Draw(rt, "system"))
		if b.show(host).Converged {
			rt.Fatal("what was said about the last release counts for this one")
		}
		begun := good(2)
		begun.Checks, begun.Confirm = nil, ""
		begun.State = rapid.SampledFrom([]api.State{api.Staging, api.Activating, api.Probation, api.Committing}).Draw(rt, "state")
		if a := b.say(host, begun); a.status != 204 {
			rt.Fatal(a)
		}
		if h := b.show(host); h.Converged || len(h.Status.Checks) > 0 || h.Status.Confirm != "" {
			rt.Fatalf("a new attempt has what an old one passed: %+v", h)
		}
	})
}

// Class 3, "timers start at notice": clocks ran from when the server saw a
// report. Here when a report arrives changes nothing but when the host was heard
// of, and what a host is told holds no time of the server's.
func TestClass3ArrivalTimesChangeNothing(t *testing.T) {
	b := newBugs(t)
	defer b.setClock(time.Now)
	rapid.Check(t, func(rt *rapid.T) {
		soon, late := b.newHost(), b.newHost()
		now := time.Now()
		var last *api.Status
		for range rapid.IntRange(1, 5).Draw(rt, "reports") {
			s := b.anyStatus(rt)
			b.setClock(func() time.Time { return now })
			took := b.takes(rt, soon, last, s)
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(rt, "delay")))
			b.setClock(func() time.Time { return now })
			if b.takes(rt, late, last, s) != took {
				rt.Fatalf("taken or not by its time: %+v", s)
			}
			if took {
				last = s
			}
			if last == nil {
				continue
			}
			one, two := b.show(soon), b.show(late)
			two.Host, two.LastSeen, two.Online, two.Reported, two.Identity = one.Host, one.LastSeen, one.Online, one.Reported, one.Identity
			if !reflect.DeepEqual(one, two) {
				rt.Fatalf("the same reports, later:\n%+v\n%+v", one, two)
			}
			if d, e := b.desiredOf(soon), b.desiredOf(late); d != e {
				rt.Fatalf("told soon %s\ntold late %s", d, e)
			}
		}
	})
}

func (b *bugs) desiredOf(host string) string {
	return b.ask("GET", "/api/v1/hosts/"+host+"/desired?channel=web&target=web-1", b.world.host, nil).body
}

// Class 4, "zero soak": well was inferred in the tick in which waiting began.
// Here a host has converged when it said so, in the state ok and about the release
// that is wanted, and for no other reason.
func TestClass4ConvergedIsSaid(t *testing.T) {
	b := newBugs(t)
	rapid.Check(t, func(rt *rapid.T) {
		host := b.newHost()
		var last *api.Status
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			switch rapid.IntRange(0, 4).Draw(rt, "step") {
			case 0:
				b.next(rapid.IntRange(0, 1).Draw(rt, "system"))
			case 1:
				b.desiredOf(host)
			default:
				if s := b.anyStatus(rt); b.takes(rt, host, last, s) {
					last = s
				}
			}
			said := last != nil && last.State == api.OK && last.Seq == b.seq && last.Current == b.wants && last.Wanted == b.wants
			if last == nil {
				continue
			}
			if got := b.show(host).Converged; got != said {
				rt.Fatalf("converged is %v at seq %d, %s, after %+v", got, b.seq, b.wants, last)
			}
		}
	})
}

// Class 5, "done inferred from absence": a release that changed nothing left no
// rows, so its predecessor looked active for ever. Here the release that is wanted
// is always the last one, for a host that never spoke of any, too, and one that changes
// nothing is open until the host has said its seq.
func TestClass5SilenceIsNotDone(t *testing.T) {
	b := newBugs(t)
	rapid.Check(t, func(rt *rapid.T) {
		silent, speaks := b.newHost(), b.newHost()
		b.desiredOf(silent)
		if a := b.say(silent, &api.Status{StartID: 1, Counter: 1, Channel: "web", Target: silent, BootID: "b-1", State: api.Idle}); a.status != 204 {
			rt.Fatal(a)
		}
		s := &api.Status{StartID: 1, Counter: 1, Channel: "web", Target: speaks, BootID: "b-1", State: api.OK, Seq: b.seq, Wanted: b.wants, Current: b.wants, Booted: b.wants, Profile: b.wants}
		if a := b.say(speaks, s); a.status != 204 {
			rt.Fatal(a)
		}
		system := 0
		if b.wants == b.paths[1] {
			system = 1
		}
		for range rapid.IntRange(1, 3).Draw(rt, "releases that change nothing") {
			b.next(system)
		}
		for _, h := range []api.Host{b.show(silent), b.show(speaks)} {
			if h.Converged || h.WantedSeq != b.seq || h.Wanted != b.wants {
				rt.Fatalf("before anything was said of seq %d: %+v", b.seq, h)
			}
		}
		s.Counter, s.Seq = 2, b.seq
		if a := b.say(speaks, s); a.status != 204 || !b.show(speaks).Converged {
			rt.Fatalf("not converged by %s", a)
		}
	})
}

// Class 6, "nonsense can be said": soaked with current ≠ declared was a row like
// any other. Here what contradicts itself is refused, and nothing of it is kept.
func TestClass6NonsenseIsNotKept(t *testing.T) {
	b := newBugs(t)
	host := b.newHost()
	lie := &api.Status{StartID: 1, Counter: 1, Channel: "web", Target: host, BootID: "b-1", State: api.OK, Seq: b.seq, Wanted: b.wants, Current: "/nix/store/00000000000000000000000000000000-other", Profile: b.wants}
	if a := b.say(host, lie); a.status != 400 || b.record(host) != nil {
		t.Fatalf("%+v got %s", lie, a)
	}
	refused := 0
	rapid.Check(t, func(rt *rapid.T) {
		host := b.newHost()
		s := b.anyStatus(rt)
		s.StartID, s.Counter = 1, 1
		a := b.say(host, s)
		test := s.Action == string(signing.Test)
		nonsense := s.State == api.OK && (s.Wanted == "" || s.Current != s.Wanted || !test && s.Profile != s.Wanted) ||
			s.State == api.Testing && s.Current != s.Wanted ||
			s.State == api.Armed && s.Profile != s.Wanted ||
			s.State == api.Reverted && s.Wanted != "" && s.Current == s.Wanted
		switch {
		case nonsense && a.status == 400:
			refused++
			if r := b.record(host); r != nil {
				rt.Fatalf("refused, and kept: %+v", r)
			}
		case nonsense || a.status != 204:
			rt.Fatalf("nonsense %v: %+v got %s", nonsense, s, a)
		}
	})
	if refused == 0 && !testing.Short() { // which tries too few to be sure of one
		t.Error("no nonsense was tried")
	}
}
