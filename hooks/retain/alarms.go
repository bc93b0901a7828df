package retain

import (
	"context"
	"fmt"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/api/retention"
	"narwharf/hooks/audit"
	"narwharf/narinfo/clip"
)

const alarmBucket = "hooks/gc-alarm"

// The kinds of alarms, as events of the audit log.
const (
	overSize = "gc.over"    // nothing more may go, and the cache is over its limits
	failing  = "gc.failing" // no collection has come to its end for long
	filling  = "disk.full"  // the disk will be full within a day
	yielding = "gc.grace"   // what grace would have kept went for a full disk
)

var alarmKinds = []string{overSize, failing, filling, yielding}

const (
	failingAfter = 24 * time.Hour
	fullWithin   = 24 * time.Hour
	// A rate is of at most so much time, and of at least some of it.
	rateOver  = 6 * time.Hour
	rateLeast = 30 * time.Minute
)

type sample struct {
	at   time.Time
	free int64
}

// watch raises alarms, each once until it is over.
type watch struct {
	set      *mirror.Set
	clock    func() time.Time
	began    time.Time
	interval time.Duration // between two collections
	samples  []sample      // of what is free, the oldest first
	seen     time.Time     // the end of the last collection that was looked at
}

// look raises the alarms that the disk and the last collection call for, and ends the
// others; what the collection deleted gets its line in the audit log. free is below 0 where
// that is not known.
func (w *watch) look(ctx context.Context, free int64, last *retention.Result) error {
	if last == nil {
		last = new(retention.Result)
	}
	found, fresh := w.judge(free, last), last.Ended.After(w.seen)
	err := w.set.Update(ctx, []string{"gc-alarm"}, func(tx *mirror.Tx) error {
		if n := last.Paths(); fresh && n > 0 {
			audit.Note(tx, api.Event{Kind: "gc.collected", Text: fmt.Sprintf("collected %s, %s; the uploads have %s now", clip.Count(n, "path"), retention.Bytes(last.Bytes), retention.Bytes(last.Size))})
		}
		for _, kind := range alarmKinds {
			was, err := tx.Get(alarmBucket, kind)
			if err != nil {
				return err
			}
			switch text := found[kind]; {
			case text != "" && was == nil:
				audit.Note(tx, api.Event{Kind: kind, Alarm: true, Text: text})
				tx.Keep(tx.Put(alarmBucket, kind, []byte(state.Uint64Key(uint64(tx.Time.Unix())))))
			case text == "" && was != nil:
				audit.Note(tx, api.Event{Kind: kind, Text: "it is over: " + endings[kind]})
				tx.Keep(tx.Delete(alarmBucket, kind))
			}
		}
		return nil
	})
	if err == nil {
		w.seen = last.Ended
	}
	return err
}

var endings = map[string]string{
	overSize: "the cache is within its limits",
	failing:  "a collection has come to its end",
	filling:  "the disk does not fill within a day",
	yielding: "the last collection took nothing that its grace keeps",
}

// judge says which alarms are due.
func (w *watch) judge(free int64, r *retention.Result) map[string]string {
	now := w.clock()
	found := make(map[string]string)
	if r.Over > 0 {
		found[overSize] = fmt.Sprintf("the cache is %s over its limits, and nothing more may go: narwharf du says who keeps it; unpin, delete channels, lower retention.keep_releases or retention.grace, or raise retention.max_size", retention.Bytes(r.Over))
	}
	if r.GraceYielded {
		found[yielding] = "the disk was full, and paths went that their grace would have kept: runners that believe to have them here need nix copy --refresh; a larger disk, or a smaller retention.max_size, keeps that from happening"
	}
	since := w.began // before, nothing could collect
	if r.Success != nil && r.Success.After(since) {
		since = *r.Success
	}
	if patience := max(failingAfter, 3*w.interval); now.Sub(since) > patience {
		found[failing] = "no collection has come to its end for " + now.Sub(since).Round(time.Hour).String()
		if r.Error != "" {
			found[failing] += ": " + r.Error
		}
	}
	if left, ok := w.fullIn(now, free); ok {
		found[filling] = fmt.Sprintf("the disk will be full in %s as it goes now: %s are free", left.Round(time.Minute), retention.Bytes(free))
	}
	return found
}

// lookEvery is how often alarms are looked for.
const lookEvery = time.Minute

// Tend raises alarms about what a Collector does, once in an interval, and about the disk,
// until ctx ends.
func (r *Retainer) Tend(ctx context.Context, c Collector, interval time.Duration) {
	w := &watch{set: r.o.Set, clock: r.o.Clock, began: r.o.Clock(), interval: interval, seen: r.o.Clock()}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		left, known, err := c.Free()
		if !known {
			left = -1
		}
		if err == nil {
			var st *retention.Status
			if st, err = c.Status(ctx); err == nil {
				err = w.look(ctx, left, st.Last)
			}
		}
		if err != nil && ctx.Err() == nil {
			r.o.Log.Error("look at the disk and at collections", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Note writes a line into the audit log.
func (r *Retainer) Note(ctx context.Context, e api.Event) error {
	return r.o.Set.Update(ctx, nil, func(tx *mirror.Tx) error {
		audit.Note(tx, e)
		return nil
	})
}

// fullIn guesses when the disk is full, if that is soon.
func (w *watch) fullIn(now time.Time, free int64) (left time.Duration, soon bool) {
	if free < 0 {
		return 0, false
	}
	w.samples = append(w.samples, sample{now, free})
	for len(w.samples) > 1 && now.Sub(w.samples[0].at) > rateOver {
		w.samples = w.samples[1:]
	}
	first := w.samples[0]
	spent, used := now.Sub(first.at), first.free-free
	if spent < rateLeast || used <= 0 {
		return 0, false
	}
	left = time.Duration(float64(spent) * float64(free) / float64(used))
	return left, left < fullWithin
}
