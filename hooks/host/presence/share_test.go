package presence

import (
	"log/slog"
	"testing"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/memory"
)

// A host that is parked at one server is there for the other, and does not stay so by the echo of that.
func TestShare(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	store := memory.New(nil)
	clock := func() time.Time { return now }
	a := &Share{store, New(), clock, slog.New(slog.DiscardHandler)}
	b := &Share{store, New(), clock, slog.New(slog.DiscardHandler)}
	round := func() {
		t.Helper()
		for _, s := range []*Share{a, b} {
			if err := s.Once(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		now = now.Add(shareEvery)
	}
	poll, _ := a.Book.Of("h").Arrive(now, "web", "h")
	round()
	if p := b.Book.Seen("h"); p == nil || !p.Online(now) || p.View(now).Until.IsZero() {
		t.Fatal("the other server does not hear of the host")
	}
	a.Book.Of("h").Leave(now, poll, false)
	for range 12 { // OnlineFor and what was told last, and then nobody
		round()
	}
	for name, s := range map[string]*Share{"it": a, "the other": b} {
		if p := s.Book.Seen("h"); p != nil && p.Online(now) {
			t.Errorf("%s still hears of a host that is gone", name)
		}
	}
	now = now.Add(2 * keepHeard)
	round()
	if err := store.View(t.Context(), func(tx state.Reader) error {
		v, err := tx.Get(heardBucket, "h")
		if v != nil {
			t.Error("the row of a host that nobody hears of stays")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
