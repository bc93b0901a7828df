package retain

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/cache/state/memory"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/api/retention"
	"narwharf/hooks/audit"
)

// watched is a watch with its clock and its audit log.
type watched struct {
	*watch
	t    *testing.T
	now  time.Time
	next int64
}

func newWatched(t *testing.T) *watched {
	w := &watched{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), next: 1}
	clock := func() time.Time { return w.now }
	set := mirror.NewSet(memory.New(clock), slog.New(slog.DiscardHandler))
	w.watch = &watch{set: set, clock: clock, began: w.now, interval: time.Hour, seen: w.now}
	return w
}

// look looks, and wants lines of these kinds in the audit log: "!kind" is an alarm.
func (w *watched) wantLines(free int64, last *retention.Result, want ...string) {
	w.t.Helper()
	if err := w.look(context.Background(), free, last); err != nil {
		w.t.Fatal(err)
	}
	events, next, err := audit.Since(w.set, w.next, 100, func(*api.Event) bool { return true })
	if err != nil {
		w.t.Fatal(err)
	}
	w.next = next
	var got []string
	for _, e := range events {
		mark := ""
		if e.Alarm {
			mark = "!"
		} else if e.Kind != "gc.collected" && !strings.HasPrefix(e.Text, "it is over: ") {
			w.t.Errorf("%s says %q", e.Kind, e.Text)
		}
		got = append(got, mark+e.Kind)
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("the log has %q, want %q", got, want)
	}
}

// An alarm is raised once, and its end is told.
func TestAlarms(t *testing.T) {
	w := newWatched(t)
	result := func(change func(*retention.Result)) *retention.Result {
		r := &retention.Result{Ended: w.now, Success: &w.now, Gone: map[string]retention.Sum{}}
		if change != nil {
			change(r)
		}
		return r
	}
	w.wantLines(-1, nil)
	w.wantLines(-1, result(nil))
	w.now = w.now.Add(time.Minute)
	over := result(func(r *retention.Result) { r.Over, r.Gone["size"] = 1<<30, retention.Sum{Paths: 3} })
	w.wantLines(-1, over, "gc.collected", "!gc.over")
	w.wantLines(-1, over)
	w.now = w.now.Add(time.Minute)
	w.wantLines(-1, result(func(r *retention.Result) { r.GraceYielded = true }), "gc.over", "!gc.grace")
	w.now = w.now.Add(time.Minute)
	good := result(nil)
	success := w.now
	good.Success = &success
	w.wantLines(-1, good, "gc.grace")
	w.now = w.now.Add(25 * time.Hour)
	good.Error = "the disk is broken"
	w.wantLines(-1, good, "!gc.failing")
	if text := w.judge(-1, good)[failing]; !strings.Contains(text, "25h0m0s: the disk is broken") {
		t.Errorf("it says %q", text)
	}
	// A server that was started again goes on from what was told.
	w.watch = &watch{set: w.set, clock: w.clock, began: w.began, interval: time.Hour, seen: w.now}
	w.wantLines(-1, good)
	w.wantLines(-1, result(nil), "gc.failing")
}

// The disk fills at a rate that is measured over hours.
func TestDiskFills(t *testing.T) {
	w := newWatched(t)
	free := int64(100 << 30)
	look := func(hours float64, perHour int64, want ...string) {
		t.Helper()
		w.now = w.now.Add(time.Duration(hours * float64(time.Hour)))
		free -= int64(hours * float64(perHour))
		success := w.now
		w.wantLines(free, &retention.Result{Success: &success}, want...)
	}
	look(0, 0)
	look(0.25, 40<<30) // too soon to say
	look(0.5, 1<<30, "!disk.full")
	look(2, 0)
	look(4, 0, "disk.full")
	for range 8 {
		look(1, 1<<30) // 80 hours are left
	}
	for range 3 {
		look(1, 4<<30)
	}
	look(1, 10<<30, "!disk.full")
	look(1, -60<<30, "disk.full")
}
