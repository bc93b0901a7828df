package hooks

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
)

// TestTwoDrivers: of two servers of a state one drives. If it is silent the other takes over
// within ten seconds; when it comes back it does nothing any more. Nobody activates anything
// twice, and no more hosts are on their way than may be.
func TestTwoDrivers(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.halt()
		w.replicas = true
		a := &fleet{world: w}
		w.serve(w.db)
		other := *w
		b := &fleet{world: &other}
		other.serve(w.db)
		defer other.halt()
		tending, end := context.WithCancel(t.Context())
		defer end()
		for _, s := range []*Server{a.s, b.s} {
			go s.sharing.Run(tending)
		}
		a.populate(5)
		b.robots, b.systems = a.robots, a.systems
		w.must(w.do("PUT", "/api/v1/channels/web/policy", w.op, json.RawMessage(`{"rollout":{"waves":[{"select":"canary","bake":"30m"},{}],"max_concurrency":2}}`)), 200, "")
		if !a.s.Rollouts.State().Leads || b.s.Rollouts.State().Leads {
			t.Fatalf("%+v %+v", a.s.Rollouts.State(), b.s.Rollouts.State())
		}
		polls := func(f *fleet, seconds int) {
			for range seconds {
				for _, m := range f.robots {
					f.step(m)
				}
				f.flight(2)
				time.Sleep(time.Second)
			}
		}
		w.promote(2, w.entry("*", a.systems["b"]))
		polls(b, 20) // what one decides, hosts hear at the other
		time.Sleep(15 * time.Minute)
		if s, err := a.s.Rollouts.Show("web", 0); err != nil || s.Offline > 0 || s.State != rollout.Running {
			t.Fatalf("whom the other server hears of is offline: %+v %v", s, err)
		}
		if b.count("b") != 1 || b.s.Rollouts.State().Leads {
			t.Fatalf("%s run b; %+v", b.run("b"), b.s.Rollouts.State())
		}
		a.s.timers.Stop() // it hangs
		began := time.Now()
		for !b.s.Rollouts.State().Leads {
			polls(b, 1)
			if time.Since(began) > 10*time.Second {
				t.Fatalf("after %s nobody has taken over: %+v", time.Since(began), b.s.Rollouts.State())
			}
		}
		t.Logf("taken over after %s", time.Since(began))
		a.s.Rollouts.Begin() // it comes back
		polls(b, 2000)
		a.s.Rollouts.Begin()
		if s, err := b.s.Rollouts.Show("web", 0); err != nil || s.State != rollout.Completed || b.count("b") != 5 {
			t.Fatalf("%+v %v, %s run b", s, err, b.run("b"))
		}
		if a.s.Rollouts.State().Leads {
			t.Error("the one that was silent leads")
		}
		for _, m := range b.robots {
			if len(m.ran) != 1 {
				t.Errorf("%s activated %v", m.name, m.ran)
			}
		}
		// Who is told something by a person acts, at once.
		b.fresh()
		w.promote(3, w.entry("*", a.systems["c"]))
		if !a.s.Rollouts.State().Leads {
			t.Error("it took a promote, and does not lead")
		}
		for range 2000 {
			polls(a, 1)
			a.s.Rollouts.Begin()
		}
		if a.count("c") != 5 {
			t.Errorf("%s run c", a.run("c"))
		}
	})
}

// TestHostAhead: a host that one server has told of a release is not told of an older one by another, which
// has not looked yet. It waits there, a second at most.
func TestHostAhead(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.halt()
		w.replicas = true
		a := &fleet{world: w}
		w.serve(w.db)
		other := *w
		other.serve(w.db)
		defer other.halt()
		a.populate(1)
		w.must(w.do("PUT", "/api/v1/channels/web/policy", w.op, json.RawMessage(`{"rollout":{"max_concurrency":1}}`)), 200, "")
		time.Sleep(5 * time.Second)
		other.do("GET", desiredPath+"&seq=1", other.host, nil)
		w.promote(2, w.entry("*", a.systems["b"]))
		for _, have := range []int64{2, 9} { // 9 is of a later backup
			began := time.Now()
			d := decode[api.Desired](t, other.do("GET", fmt.Sprintf("%s&seq=%d", desiredPath, have), other.host, nil))
			if took := time.Since(began); d.Seq != 2 || took > 5*time.Second {
				t.Errorf("a host that has %d is told %d, after %v", have, d.Seq, took)
			}
		}
	})
}
