package reboot

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"narwharf/cache/state/memory"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
)

// TestSlotEnds: what ends a slot, and what does not.
func TestSlotEnds(t *testing.T) {
	start := time.Now()
	sl := &Slot{Channel: "web", Group: "web", Seq: 3, BootID: "old", Granted: start}
	report := func(change func(s *api.Status)) *api.Status {
		s := &api.Status{Channel: "web", Seq: 3, BootID: "new", State: api.Probation, Action: "reboot"}
		change(s)
		return s
	}
	long := start.Add(time.Hour)
	for _, c := range []struct {
		name string
		s    *api.Status
		now  time.Time
		over bool
	}{
		{"probation", report(func(*api.Status) {}), long, false},
		{"reverting", report(func(s *api.Status) { s.State = api.Reverting }), long, false},
		{"ok", report(func(s *api.Status) { s.State = api.OK }), start, true},
		{"reverted", report(func(s *api.Status) { s.State = api.Reverted }), start, true},
		{"failed", report(func(s *api.Status) { s.State = api.Failed }), start, true},
		{"drifted", report(func(s *api.Status) { s.State = api.Drifted }), start, true},
		{"another release", report(func(s *api.Status) { s.Seq, s.State = 4, api.Staging }), start, true},
		{"another channel", report(func(s *api.Status) { s.Channel = "db" }), start, true},
		{"armed after a boot, before probation", report(func(s *api.Status) { s.State, s.WaitingFor = api.Armed, &api.Waiting{Kind: api.WaitPaused} }), long, false},
		{"armed, still up", report(func(s *api.Status) {
			s.State, s.BootID, s.WaitingFor = api.Armed, "old", &api.Waiting{Kind: api.WaitReboot}
		}), long, false},
		{"paused before it heard", report(func(s *api.Status) {
			s.State, s.BootID, s.WaitingFor = api.Armed, "old", &api.Waiting{Kind: api.WaitPaused}
		}), start.Add(10 * time.Minute), false},
		{"paused", report(func(s *api.Status) {
			s.State, s.BootID, s.WaitingFor = api.Armed, "old", &api.Waiting{Kind: api.WaitPaused}
		}), long, true},
		{"a person switched it instead", report(func(s *api.Status) { s.State, s.BootID = api.OK, "old" }), start, true},
	} {
		if got := sl.Over(c.s, c.now); got != c.over {
			t.Errorf("%s: over %v, want %v", c.name, got, c.over)
		}
	}
}

// TestLeaseOfASlot: all permissions of a slot end with its first lease, in steps.
func TestLeaseOfASlot(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	sl := &Slot{Granted: at}
	for after, want := range map[time.Duration]time.Duration{
		0: Lease, time.Second: Lease, 59 * time.Second: Lease, time.Minute: 14 * time.Minute, 14*time.Minute + 59*time.Second: time.Minute,
		Lease: 0, time.Hour: 0, -time.Hour: Lease,
	} {
		if got := sl.Lease(at.Add(after)); got != want {
			t.Errorf("after %s: %s, want %s", after, got, want)
		}
	}
}

// TestTake: of many that ask in the same moment as many get a slot as there are,
// also at two servers of which neither is told what the other writes.
func TestTake(t *testing.T) {
	for limit := range 4 {
		db := memory.New(nil)
		type server struct {
			set   *mirror.Set
			slots *Slots
		}
		var servers [2]server
		for i := range servers {
			set := mirror.NewSet(db, slog.New(slog.DiscardHandler))
			slots, err := New(set, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			servers[i] = server{set, slots}
		}
		take := func(i int, host, group string, limit int) (taken bool) {
			err := servers[i%2].set.Update(t.Context(), []string{Lock(group)}, func(tx *mirror.Tx) error {
				taken = servers[i%2].slots.Take(tx, host, &Slot{Group: group, Granted: tx.Time}, limit)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			return taken
		}
		got := make(chan bool)
		for i := range 20 {
			go func() { got <- take(i, fmt.Sprint("h", i), "g", limit) }()
		}
		n := 0
		for range 20 {
			if <-got {
				n++
			}
		}
		if want := limit; n != want && limit > 0 || limit == 0 && n != 20 {
			t.Errorf("with a limit of %d, %d got a slot", limit, n)
		}
		fresh, err := New(mirror.NewSet(db, slog.New(slog.DiscardHandler)), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		all := fresh.All()
		if len(all) != n {
			t.Errorf("%d hold a slot", len(all))
		}
		for host := range all {
			if take(1, host, "other", 0) {
				t.Errorf("%s took a slot while it held one", host)
			}
		}
	}
}
