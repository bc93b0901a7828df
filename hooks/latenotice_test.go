package hooks

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/channel"
	"narwharf/hooks/closure"
	"narwharf/hooks/host"
)

// TestNoAlarmForALateNotice: a host that reports at one server what another told it
// is no sign of a restored backup.
func TestNoAlarmForALateNotice(t *testing.T) {
	both := replicas(t, 200*time.Millisecond)
	a, b := both[0], both[1]
	a.promote(1, a.entry("*", a.system("a")))
	b.becomes("the other server knows it", func() bool {
		a := b.do("GET", "/api/v1/channels/web", b.ci, nil)
		return a.status == 200 && decode[api.Channel](t, a).Seq == 1
	})
	a.promote(2, a.entry("*", a.system("b")))
	d := decode[api.Desired](t, a.must(a.do("GET", desiredPath, a.host, nil), 200, ""))
	st := status(1, api.Staging)
	st.Seq, st.HighestSeq, st.Head = 2, 2, d.Pointer
	b.must(b.report(st), 204, "")
	if n := a.count("channel.behind"); n != 0 {
		t.Errorf("%d alarms: was the server restored from an old backup?", n)
	}
}

// readCount counts how often releases are read.
type readCount struct {
	*memFiles
	n *atomic.Int64
}

func (r readCount) Read(name string, limit int64) ([]byte, error) {
	if strings.HasPrefix(name, "channels/web/") {
		r.n.Add(1)
		time.Sleep(20 * time.Millisecond) // and to parse it
	}
	return r.memFiles.Read(name, limit)
}

// TestOneReadServesAll: polls that wake at another server than the promoter's do not
// read and check the release each for itself.
func TestOneReadServesAll(t *testing.T) {
	w := newWorld(t)
	n := new(atomic.Int64)
	w.promote(1, w.entry("*", w.system("a")))
	files := readCount{w.files, n}
	set := mirror.NewSet(w.db, w.log)
	w.db.Watch(set.Noticed)
	c, err := channel.New(set, closure.New(w.cache, files, w.log), files, w.log)
	if err != nil {
		t.Fatal(err)
	}
	c.Get("web")
	n.Store(0)
	w.promote(2, w.entry("*", w.system("b")))
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() { c.Get("web") })
	}
	wg.Wait()
	if n.Load() != 1 {
		t.Errorf("1000 polls read the release %d times", n.Load())
	}
}

// TestRemovedMeanwhile: a host that is removed while others are looked at is one of
// them or is not, and no record of nothing.
func TestRemovedMeanwhile(t *testing.T) {
	w := newWorld(t)
	rebooters(w, 1, "web-1", "web-2")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		i := int64(0)
		for {
			select {
			case <-stop:
				return
			default:
			}
			i++
			_ = w.s.set.Update(context.Background(), nil, func(tx *mirror.Tx) error {
				if i%2 == 0 {
					w.s.hosts.Put(tx, "web-9", &host.Record{})
				} else {
					w.s.hosts.Forget(tx, host.Caller{}, "web-9", "web")
				}
				return nil
			})
		}
	})
	end := time.After(time.Second)
	nils := 0
	for k := 0; ; k++ {
		select {
		case <-end:
			close(stop)
			wg.Wait()
			if nils > 0 {
				t.Errorf("Records had a nil record %d times of %d: inQueue panics", nils, k)
			}
			return
		default:
		}
		for _, r := range w.s.hosts.Records() {
			if r == nil {
				nils++
			}
		}
	}
}

// without is a state whose notices of one kind come never (they are hints).
type without struct {
	state.Store
	prefix string
}

func (s without) Watch(fn func([]string)) func() {
	return s.Store.Watch(func(topics []string) {
		fn(slices.DeleteFunc(slices.Clone(topics), func(t string) bool { return strings.HasPrefix(t, s.prefix) }))
	})
}

// TestRestIsRead: whether a host rests is read in the transaction that would give it
// a slot.
func TestRestIsRead(t *testing.T) {
	w := newWorld(t)
	h := rebooters(w, 1, "web-1")[0]
	h.asks(1)
	h.poll()
	other := *w
	other.serve(without{w.db, "hooks/host/"})
	defer other.halt()
	g := *h
	g.w = &other
	other.show("web-1")
	now := time.Now().Add(17*time.Minute + time.Second)
	w.setClock(func() time.Time { return now })
	other.do("GET", "/api/v1/hosts/web-1", w.op, nil)
	if d := h.poll(); d.Reboot != nil {
		t.Fatal("it was let reboot while it rests")
	}
	if d := g.poll(); d.Reboot != nil {
		t.Errorf("at the other server it is let reboot at once: %+v, unused in the state: %+v", d.Reboot, w.record("web-1").Unused)
	}
}

// TestApproveReadsTheClaim: whose tokens an approval revokes is read in its transaction.
func TestApproveReadsTheClaim(t *testing.T) {
	both := replicas(t, time.Hour)
	a, b := both[0], both[1]
	one, two := a.machine("web-1", "1", "b1"), a.machine("web-1", "2", "b2")
	one.joins(a.joinToken("rack", "", 2))
	one.taken()
	// The other server reads what there is so far.
	b.halt()
	b.serve(lateNotices{a.db, time.Hour})
	b.show("web-1")
	two.refused()
	got := b.approve("web-1", two.instance)
	list, err := a.tokens.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tok := range list {
		if tok.Host == "web-1" && tok.Revoked.IsZero() && got.status == 200 {
			t.Errorf("the token %s of the machine that lost the name is good", tok.Name)
		}
	}
}

// cancelled is a state in which who asked for a change goes away just before its commit.
type cancelled struct {
	state.Store
	cancel func()
}

func (c cancelled) Update(ctx context.Context, locks []string, fn func(tx state.Tx) error) error {
	return c.Store.Update(ctx, locks, func(tx state.Tx) error {
		defer c.cancel()
		return fn(tx)
	})
}

// TestApproveIsWhole: an operator who leaves does not leave an approval half done.
func TestApproveIsWhole(t *testing.T) {
	w := newWorld(t)
	a, b := w.machine("web-1", "a", "boot-a"), w.machine("web-1", "b", "boot-b")
	a.joins(w.joinToken("rack", "", 2))
	a.taken()
	b.refused()
	ctx, cancel := context.WithCancel(context.Background())
	w.halt()
	w.serve(cancelled{w.db, cancel})
	err := w.s.hosts.Approve(ctx, host.Caller{Name: "op"}, "web-1", "web", b.instance)
	owner, status := b.instance, 401
	if err != nil {
		owner, status = a.instance, 200
	}
	if h := w.show("web-1"); h.Identity.Instance != owner || a.poll().status != status {
		t.Errorf("%v; the name is of %s, the old machine's poll is %d", err, h.Identity.Instance, a.poll().status)
	}
}

// TestDamagedRecord: of a host whose record cannot be read nobody says that it is
// not held; other hosts and lists go on.
func TestDamagedRecord(t *testing.T) {
	w := newWorld(t)
	w.promote(1, w.entry("*", w.system("a")))
	if err := w.db.Update(t.Context(), nil, func(tx state.Tx) error {
		return tx.Put("hooks/host", "web-2", []byte(`{"labels":["x"],"hold":{"reason":"do not touch"}}`))
	}); err != nil {
		t.Fatal(err)
	}
	w.restart()
	for host, want := range map[string]int{"web-1": 200, "web-2": 500} {
		if a := w.do("GET", "/api/v1/hosts/"+host+"/desired?channel=web", w.host, nil); a.status != want {
			t.Errorf("%s is told %s, want %d", host, a, want)
		}
	}
	w.must(w.do("GET", "/api/v1/hosts", w.op, nil), 200, "")
}
