package alarm

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/api/alarm"
	"narwharf/hooks/audit"
)

const (
	bucket       = "hooks/alarm"
	closedBucket = "hooks/alarm-closed"
	placeBucket  = "hooks/alarm-log"
	place        = "next" // id of the event to read on from

	lock      = "alarms" // that whoever changes alarms holds
	maxClosed = 1000     // that are kept
	page      = 1000     // events in a transaction
	// A log that is read for the first time may be years long, and what was over long ago has no
	// event that says so.
	firstLook = 30 * 24 * time.Hour
	lookEvery = 10 * time.Second // notices may be lost
)

// Book is all alarms.
type Book struct {
	set   *mirror.Set
	open  *mirror.Table[alarm.Alarm]
	bell  audit.Bell
	log   *slog.Logger
	clock func() time.Time

	mu     sync.Mutex
	next   int64     // id of the event to read on from; 0: not known yet
	stored int64     // what of that is stored
	after  time.Time // older events do not count
}

// New opens the alarms in the state of a set.
func New(set *mirror.Set, clock func() time.Time, log *slog.Logger) (b *Book, err error) {
	b = &Book{set: set, bell: audit.NewBell(), clock: clock, log: log}
	if b.open, err = mirror.Open[alarm.Alarm](set, bucket, "alarm", nil); err != nil {
		return nil, fmt.Errorf("open alarms: %w", err)
	}
	return b, nil
}

// Noticed passes on which topics the state notified of.
func (b *Book) Noticed(topics []string) { b.bell.Noticed(topics) }

// Tend follows the log until ctx ends.
func (b *Book) Tend(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.bell:
		case <-tick.C:
		}
		if err := b.CatchUp(ctx); err != nil && ctx.Err() == nil {
			b.log.Error("alarms are behind the audit log", "error", err)
		}
	}
}

// CatchUp reads the log to its end.
func (b *Book) CatchUp(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == 0 {
		if err := b.begin(ctx); err != nil {
			return err
		}
	}
	for {
		events, next, err := audit.Since(b.set, b.next, page, func(e *api.Event) bool { return !e.Time.Before(b.after) })
		if err != nil || next == b.next {
			return err
		}
		if err := b.take(ctx, events, next); err != nil {
			return err
		}
	}
}

// begin finds out where to read on from.
func (b *Book) begin(ctx context.Context) error {
	return b.set.View(func(tx state.Reader) error {
		n, err := state.GetJSON[int64](tx, placeBucket, place)
		switch {
		case err != nil:
			return err
		case n != nil:
			b.next, b.stored = *n, *n
		default:
			b.next, b.after = 1, b.clock().Add(-firstLook)
		}
		return ctx.Err()
	})
}

// take takes events into account, up to the id next. Most change nothing, and cost no transaction.
func (b *Book) take(ctx context.Context, events []api.Event, next int64) error {
	c := &change{get: b.open.Get, all: b.open.All, open: make(map[string]*alarm.Alarm)}
	for i := range events {
		c.read(&events[i])
	}
	if len(c.open) > 0 || next-b.stored >= 10*page {
		if err := b.commit(ctx, events, next); err != nil {
			return err
		}
		b.stored = next
	}
	b.next = next
	return nil
}

func (b *Book) commit(ctx context.Context, events []api.Event, next int64) error {
	return b.set.Update(ctx, []string{lock}, func(tx *mirror.Tx) error {
		from, err := state.GetJSON[int64](tx, placeBucket, place)
		if err != nil {
			return err
		}
		c := &change{open: make(map[string]*alarm.Alarm),
			get: func(key string) *alarm.Alarm { return b.open.In(tx, key) },
			all: func() map[string]*alarm.Alarm { return b.open.AllIn(tx) }}
		for i := range events {
			if from == nil || events[i].ID >= *from { // another server may have been first
				c.read(&events[i])
			}
		}
		for key, a := range c.open {
			b.open.Put(tx, key, a)
		}
		for _, a := range c.closed {
			tx.Keep(state.PutJSON(tx, closedBucket, closedKey(a.ID), a))
			note(tx, "alarm.closed", a, a.Closed.By, fmt.Sprintf("the alarm %s is over: %s", title(a), a.Closed.Reason))
		}
		trim(tx)
		to := next
		if from != nil {
			to = max(to, *from)
		}
		return state.PutJSON(tx, placeBucket, place, to)
	})
}

// Over ends the alarm that an event is about, by writing it into the log, if one is open: for those
// who cannot know whether there is one.
func (b *Book) Over(ctx context.Context, e api.Event) error {
	if err := b.CatchUp(ctx); err != nil {
		return err
	}
	if b.open.Get(key(e.Kind, subject(e.Kind, &e))) == nil {
		return nil
	}
	return b.set.Update(ctx, nil, func(tx *mirror.Tx) error {
		audit.Note(tx, e)
		return nil
	})
}

// Tell raises an alarm, or ends it if one is open and e is none.
func (b *Book) Tell(ctx context.Context, e api.Event) error {
	if !e.Alarm {
		return b.Over(ctx, e)
	}
	return b.set.Update(ctx, nil, func(tx *mirror.Tx) error {
		audit.Note(tx, e)
		return nil
	})
}

// Of is Tell for who looks after something of the server itself: he says what is wrong, and "" where
// nothing is.
func (b *Book) Of(kind string) func(ctx context.Context, text string) error {
	return func(ctx context.Context, text string) error {
		e := api.Event{Kind: kind, By: "server", Text: cmp.Or(text, over+"what is in use now is right")}
		e.Alarm = text != ""
		return b.Tell(ctx, e)
	}
}

// title names an alarm for people.
func title(a *alarm.Alarm) string {
	if a.Subject == "" {
		return a.Kind
	}
	return a.Kind + " of " + a.Subject
}

// note writes what became of an alarm.
func note(tx *mirror.Tx, kind string, a *alarm.Alarm, by, text string) {
	audit.Note(tx, api.Event{Kind: kind, By: by, Channel: a.Channel, Host: a.Host, Seq: a.Seq, Text: text,
		Data: map[string]string{"alarm": fmt.Sprint(a.ID), "kind": a.Kind, "subject": a.Subject}})
}

func closedKey(id int64) string { return fmt.Sprintf("%016d", id) }

// trim lets the oldest closed ones go.
func trim(tx *mirror.Tx) {
	n := 0
	tx.Keep(state.Each(tx, closedBucket, state.Range{Reverse: true}, func(e state.Entry) error {
		if n++; n > maxClosed {
			return tx.Delete(closedBucket, e.Key)
		}
		return nil
	}))
}
