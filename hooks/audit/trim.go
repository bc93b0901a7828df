package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
)

// Limits bound the log; a zero value sets no bound.
type Limits struct {
	Keep    time.Duration // of a line
	MaxSize int64         // of all lines, in bytes
}

// every is how often the log is looked at.
const every = time.Hour

// Tend keeps the log within its limits until ctx ends.
func Tend(ctx context.Context, set *mirror.Set, limits Limits, clock func() time.Time, log *slog.Logger) {
	t := &trimmer{set: set, limits: limits, clock: clock}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		switch dropped, err := t.trim(ctx); {
		case ctx.Err() != nil:
			return
		case err != nil:
			log.Error("the audit log was not trimmed", "error", err)
		case dropped > 0:
			log.Info("dropped the oldest lines of the audit log", "lines", dropped)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// trimmer knows what the log holds, by pieces, so that it reads each line once.
type trimmer struct {
	set    *mirror.Set
	limits Limits
	clock  func() time.Time
	pieces []piece
	size   int64
	next   uint64 // position to read on from
}

// piece is consecutive lines of one day at most; they are dropped together.
type piece struct {
	first, last    uint64
	count          int
	size           int64
	oldest, newest time.Time
}

// trim drops the oldest pieces, one in a transaction.
func (t *trimmer) trim(ctx context.Context) (dropped int, err error) {
	if err := t.look(ctx); err != nil {
		return 0, err
	}
	drop := t.pieces[:t.tooMany(t.clock())]
	for i := range drop {
		var gone bool
		err := t.set.Update(ctx, []string{"audit"}, func(tx *mirror.Tx) error {
			first, err := tx.ReadLog(bucket, 0, 1)
			if gone = len(first) > 0 && first[0].Position != drop[i].first; err != nil || gone {
				return err // another server drops them
			}
			if i == 0 {
				Note(tx, line(drop))
			}
			return tx.Trim(bucket, drop[i].last+1)
		})
		if err != nil || gone {
			*t = trimmer{set: t.set, limits: t.limits, clock: t.clock}
			return dropped, err
		}
		dropped += drop[i].count
		t.size -= drop[i].size
	}
	t.pieces = t.pieces[len(drop):]
	return dropped, nil
}

// look reads the lines that are new.
func (t *trimmer) look(ctx context.Context) error {
	for {
		page, err := read(t.set, t.next)
		if err != nil {
			return err
		}
		for _, r := range page {
			var e struct{ Time time.Time }
			if json.Unmarshal(r.Value, &e) != nil && len(t.pieces) > 0 {
				e.Time = t.pieces[len(t.pieces)-1].newest // a damaged line is as old as the one before
			}
			t.add(r.Position, int64(len(r.Value)), e.Time)
		}
		if len(page) < pageSize || ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (t *trimmer) add(position uint64, size int64, at time.Time) {
	n := len(t.pieces)
	if n == 0 || t.pieces[n-1].count == pageSize || at.Sub(t.pieces[n-1].oldest) > 24*time.Hour {
		t.pieces = append(t.pieces, piece{first: position, oldest: at})
		n++
	}
	p := &t.pieces[n-1]
	p.last, p.newest, p.size, p.count = position, at, p.size+size, p.count+1
	t.size, t.next = t.size+size, position+1
}

// tooMany is how many of the first pieces are over the limits. The last stays.
func (t *trimmer) tooMany(now time.Time) (n int) {
	left := t.size
	for n < len(t.pieces)-1 {
		p := t.pieces[n]
		old := t.limits.Keep > 0 && now.Sub(p.newest) > t.limits.Keep
		if large := t.limits.MaxSize > 0 && left > t.limits.MaxSize; !old && !large {
			return n
		}
		left -= p.size
		n++
	}
	return n
}

// line says what is dropped.
func line(drop []piece) api.Event {
	first, last, count := drop[0], drop[len(drop)-1], 0
	for _, p := range drop {
		count += p.count
	}
	from, to := strconv.FormatUint(first.first, 10), strconv.FormatUint(last.last, 10)
	return api.Event{
		Kind: "audit.dropped",
		Text: fmt.Sprintf("the audit log dropped its %d oldest lines, %s to %s, of %s to %s, as [audit] in the configuration says",
			count, from, to, first.oldest.UTC().Format(time.DateOnly), last.newest.UTC().Format(time.DateOnly)),
		Data: map[string]string{"from": from, "to": to, "lines": strconv.Itoa(count)},
	}
}
