package hooks

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"sync"
	"testing"
	"time"

	"narwharf/cache/state"
	"narwharf/hooks/api"
	"narwharf/hooks/api/policy"
	"narwharf/signing"
)

// lateNotices is a state of which notices come late.
type lateNotices struct {
	state.Store
	by time.Duration
}

func (s lateNotices) Watch(fn func(topics []string)) func() {
	var pending sync.WaitGroup
	var mu sync.Mutex
	stopped := make(chan struct{})
	stop := s.Store.Watch(func(topics []string) {
		pending.Go(func() {
			select {
			case <-time.After(s.by):
				mu.Lock()
				defer mu.Unlock()
				fn(topics)
			case <-stopped:
			}
		})
	})
	return sync.OnceFunc(func() {
		stop()
		close(stopped)
		pending.Wait()
	})
}

// replicas are two servers of one state, of which each hears late of what any has
// written.
func replicas(t *testing.T, late time.Duration) [2]*world {
	w := newWorld(t)
	w.halt()
	w.serve(lateNotices{w.db, late})
	other := *w
	other.serve(lateNotices{w.db, late})
	t.Cleanup(other.halt)
	return [2]*world{w, &other}
}

// TestReplicaWakes: what is promoted, set or reported at one server wakes the polls
// at the other.
func TestReplicaWakes(t *testing.T) {
	both := replicas(t, 10*time.Millisecond)
	a, b := both[0], both[1]
	etag := b.must(b.do("GET", desiredPath, b.host, nil), 200, "").header.Get("ETag")
	woken := func(what string, change func()) {
		t.Helper()
		got := make(chan answer, 1)
		go func() {
			a, _ := b.try("GET", desiredPath, b.host, nil, "If-None-Match", etag, "Prefer", "wait=20")
			got <- a
		}()
		b.parked(1)
		change()
		a := <-got
		if a.status != 200 {
			t.Errorf("%s: the poll ends with %s", what, a)
		}
		etag = a.header.Get("ETag")
	}
	woken("a promote", func() { a.promote(1, a.entry("*", a.system("a"))) })
	woken("a policy", func() { a.must(a.setPolicy(policy.Channel{MinAgent: "1.0.0"}), 200, "") })
	a.must(a.report(status(1, api.Idle)), 204, "")
	woken("a hold", func() {
		a.must(a.do("PATCH", "/api/v1/hosts/web-1", a.op, map[string]any{"hold": map[string]string{"reason": "why"}}), 200, "")
	})
	woken("a second promote", func() { a.promote(2, a.entry("*", a.system("b"))) })
}

// TestReplicasPromote: of two who promote the same seq at two servers one wins, and
// the file is his.
func TestReplicasPromote(t *testing.T) {
	both := replicas(t, 20*time.Millisecond)
	systems := [2]string{"a", "b"}
	for seq := int64(1); seq <= 10; seq++ {
		var got [2]answer
		var wg sync.WaitGroup
		var releases [2]*signing.Release
		for i, w := range both {
			releases[i] = w.release(w.head(seq), w.entry("*", w.system(fmt.Sprint(systems[i], seq))))
		}
		for i, w := range both {
			wg.Go(func() { got[i] = w.promoteAs(w.ci, seq-1, releases[i]) })
		}
		wg.Wait()
		winner := 0
		if got[1].status == 200 {
			winner = 1
		}
		if got[winner].status != 200 || got[1-winner].status != 412 || got[1-winner].err.Kind != api.RaceLost {
			t.Fatalf("seq %d: %s and %s", seq, got[0], got[1])
		}
		file, err := both[0].files.Read(fmt.Sprint("channels/web/", seq), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // until both have heard of it
		for i, w := range both {
			c := decode[api.Channel](t, w.must(w.do("GET", "/api/v1/channels/web", w.ci, nil), 200, ""))
			if c.Seq != seq || !bytes.Contains(file, []byte(base64.StdEncoding.EncodeToString(c.Release.Head.Payload))) {
				t.Errorf("server %d has another release %d than the file", i, c.Seq)
			}
		}
	}
}

// TestReplicasSlots: hosts that ask at two servers at the same time get no more
// slots than there are.
func TestReplicasSlots(t *testing.T) {
	both := replicas(t, 20*time.Millisecond)
	var names []string
	for i := range 8 {
		names = append(names, fmt.Sprint("web-", i))
	}
	hosts := rebooters(both[0], 2, names...)
	for i, h := range hosts {
		h.w = both[i%2]
		h.asks(1)
	}
	time.Sleep(50 * time.Millisecond)
	for round := range 4 {
		var mu sync.Mutex
		var told []*rebooter
		var wg sync.WaitGroup
		for _, h := range hosts {
			wg.Go(func() {
				if h.poll().Reboot != nil {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, h)
				}
			})
		}
		wg.Wait()
		if len(told) != 2 {
			t.Fatalf("round %d: %d hosts may reboot", round, len(told))
		}
		for _, h := range told {
			h.w = both[round%2] // by whichever server, a slot ends
			h.boot++
			h.ends(api.OK)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestReplicasReports: a report that is older than one at the other server is
// stale, and a name is of the machine that reports first, wherever.
func TestReplicasReports(t *testing.T) {
	both := replicas(t, time.Hour) // no notice comes in time
	a, b := both[0], both[1]
	a.must(a.report(status(5, api.Idle)), 204, "")
	b.must(b.report(status(4, api.Staging)), 409, api.StaleStatus, "counter 5")
	b.must(b.report(status(6, api.Staging)), 204, "")
	a.must(a.report(status(5, api.Idle)), 409, api.StaleStatus, "counter 6")

	one, two := a.machine("web-9", "1", "boot-1"), b.machine("web-9", "2", "boot-2")
	one.taken()
	b.must(two.report(), 409, api.IdentityConflict)
}
