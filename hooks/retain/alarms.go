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

// Reading is what there is to see of the disk and of collections.
type Reading struct {
	Free     int64         // bytes that uploads find free; below 0: not known
	Size     int64         // of the NAR files of uploads
	Over     int64         // bytes that the last collection left above its limits
	Yielded  bool          // grace did, in the last collection
	Error    string        // of the last collection
	Success  time.Time     // when one last came to its end; zero: none did
	Interval time.Duration // between two of them
}

type sample struct {
	at   time.Time
	free int64
}

// Watch raises alarms, each once until it is over.
type Watch struct {
	set     *mirror.Set
	clock   func() time.Time
	began   time.Time
	samples []sample // of what is free, the oldest first
}

// Watch begins to watch. It is for one goroutine.
func (r *Retainer) Watch() *Watch {
	return &Watch{set: r.o.Set, clock: r.o.Clock, began: r.o.Clock()}
}

// Look raises the alarms that a reading calls for, and ends the others.
func (w *Watch) Look(ctx context.Context, r Reading) error {
	found := w.judge(r)
	return w.set.Update(ctx, []string{"gc-alarm"}, func(tx *mirror.Tx) error {
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
}

var endings = map[string]string{
	overSize: "the cache is within its limits",
	failing:  "a collection has come to its end",
	filling:  "the disk does not fill within a day",
	yielding: "the last collection took nothing that its grace keeps",
}

// judge says which alarms a reading calls for.
func (w *Watch) judge(r Reading) map[string]string {
	now := w.clock()
	found := make(map[string]string)
	if r.Over > 0 {
		found[overSize] = fmt.Sprintf("the cache is %s over its limits, and nothing more may go: narwharf du says who keeps it; unpin, delete channels, lower retention.keep_releases or retention.grace, or raise retention.max_size", retention.Bytes(r.Over))
	}
	if r.Yielded {
		found[yielding] = "the disk was full, and paths went that their grace would have kept: runners that believe to have them here need nix copy --refresh; a larger disk, or a smaller retention.max_size, keeps that from happening"
	}
	since := r.Success
	if since.Before(w.began) {
		since = w.began // before, nothing could collect
	}
	if patience := max(failingAfter, 3*r.Interval); now.Sub(since) > patience {
		found[failing] = "no collection has come to its end for " + now.Sub(since).Round(time.Hour).String()
		if r.Error != "" {
			found[failing] += ": " + r.Error
		}
	}
	if left, ok := w.fullIn(now, r.Free); ok {
		found[filling] = fmt.Sprintf("the disk will be full in %s as it goes now: %s are free", left.Round(time.Minute), retention.Bytes(r.Free))
	}
	return found
}

// fullIn guesses when the disk is full, if that is soon.
func (w *Watch) fullIn(now time.Time, free int64) (left time.Duration, soon bool) {
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
