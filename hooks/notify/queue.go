package notify

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/lease"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/api/notify"
	"narwharf/hooks/audit"
)

const (
	bucket = "hooks/notify"

	maxQueue = 1000           // events that wait for a target
	maxAge   = 72 * time.Hour // for how long one waits
	page     = 1000           // ids that the stored one may be behind, where nothing waits

	// Pauses between attempts grow from the first to the last; a part of each is chance, so that
	// targets which one fault took down are not all asked at once.
	firstPause, lastPause = time.Second, 10 * time.Minute

	failingAfter = 15 * time.Minute // without success it is an alarm
	lookEvery    = 10 * time.Second // notices may be lost
)

// row is what is stored of a target.
type row struct {
	Next int64 `json:"next"` // id of the first event that it has not taken
}

// waiting is an event in a queue. Its text is in the log.
type waiting struct {
	id int64
	at time.Time
}

// queue is a target at work.
type queue struct {
	o      *Options
	target *Target
	client *http.Client
	bell   audit.Bell

	held            lease.Held // as of the next: of run alone
	scanned, stored int64      // ids: the log was read up to, as the row has it

	mu      sync.Mutex // for what follows
	list    []waiting
	sent    int64
	refused int64
	dropped int64
	lost    int64     // of them, those since it last took something
	failing time.Time // the first attempt of those that failed; zero: it takes what is sent
	told    bool      // an alarm was raised since
	toldOf  bool      // and said that events are dropped
	fresh   bool      // it has taken something since the server started
	last    *notify.Attempt
}

// lead is run from where the state says, since another server may have told the target until now.
func (q *queue) lead(ctx context.Context, held lease.Held) {
	q.mu.Lock()
	q.list = nil
	q.mu.Unlock()
	q.held, q.scanned, q.stored = held, 0, 0
	q.run(ctx)
}

// run sends what the log has, until ctx ends.
func (q *queue) run(ctx context.Context) {
	defer q.client.CloseIdleConnections()
	for pause := time.Duration(0); ctx.Err() == nil; {
		if err := q.scan(ctx); err != nil {
			q.complain(ctx, "the audit log cannot be read", err)
		}
		e, err := q.first(ctx)
		if err != nil {
			q.complain(ctx, "the audit log cannot be read", err)
		}
		if e == nil {
			q.wait(ctx, lookEvery)
			continue
		}
		a, wait, refused := q.post(ctx, e)
		if ctx.Err() != nil {
			return // it is not known what came of it: it is sent again
		}
		switch {
		case a.Error == "":
			q.took(ctx, a)
			pause = 0
		case refused:
			q.o.Log.Error("a target of notify does not want an event", "target", q.target.Name, "event", e.ID, "kind", e.Kind, "status", a.Status, "answer", a.Answer)
			q.pass(ctx, a, func() { q.refused++ })
		default:
			pause = min(max(2*pause, firstPause), lastPause)
			q.failed(ctx, a)
			q.rest(ctx, max(wait, pause/2+rand.N(pause/2)))
		}
	}
}

// wait waits until there may be something to read.
func (q *queue) wait(ctx context.Context, most time.Duration) {
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-q.bell:
	case <-t.C:
	}
}

// rest leaves the target alone, and goes on reading, so that the queue stays within its bounds.
func (q *queue) rest(ctx context.Context, pause time.Duration) {
	for end := q.o.Clock().Add(pause); ctx.Err() == nil; {
		left := end.Sub(q.o.Clock())
		if left <= 0 || left > pause { // the clock was put back
			return
		}
		q.wait(ctx, left)
		if err := q.scan(ctx); err != nil {
			q.complain(ctx, "the audit log cannot be read", err)
			return
		}
	}
}

func (q *queue) complain(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		q.o.Log.Error("notify: "+what, "target", q.target.Name, "error", err)
	}
}

// begin finds out where to read on from: a target that is new is told what happens from now on.
func (q *queue) begin(ctx context.Context) error {
	err := q.o.Set.View(func(tx state.Reader) error {
		r, err := state.GetJSON[row](tx, bucket, q.target.Name)
		if r != nil {
			q.scanned, q.stored = r.Next, r.Next
		}
		return err
	})
	if err != nil || q.scanned > 0 {
		return err
	}
	newest, err := audit.Newest(q.o.Set)
	if err != nil {
		return err
	}
	q.scanned = newest + 1
	return q.store(ctx, q.scanned)
}

// scan reads what is new in the log, and queues what the target wants.
func (q *queue) scan(ctx context.Context) error {
	if q.scanned == 0 {
		if err := q.begin(ctx); err != nil {
			return err
		}
	}
	for ctx.Err() == nil {
		events, next, err := audit.Since(q.o.Set, q.scanned, page, q.target.wants)
		if err != nil || next == q.scanned {
			return err
		}
		q.scanned = next
		q.mu.Lock()
		for i := range events {
			q.list = append(q.list, waiting{events[i].ID, events[i].Time})
		}
		n := q.drop()
		empty := len(q.list) == 0
		q.mu.Unlock()
		if n > 0 {
			q.tell(ctx)
		}
		if empty && q.scanned-q.stored >= page {
			if err := q.store(ctx, q.scanned); err != nil {
				return err
			}
		}
	}
	return nil
}

// drop lets go what is too much or too old. It is for the holder of mu.
func (q *queue) drop() (n int) {
	oldest := q.o.Clock().Add(-maxAge)
	for n < len(q.list) && (len(q.list)-n > maxQueue || q.list[n].at.Before(oldest)) {
		n++
	}
	q.list = q.list[n:]
	q.dropped += int64(n)
	q.lost += int64(n)
	return n
}

// first is the event to send, nil if none waits.
func (q *queue) first(ctx context.Context) (*api.Event, error) {
	for {
		q.mu.Lock()
		n := q.drop()
		if len(q.list) == 0 {
			q.mu.Unlock()
			return nil, nil
		}
		id := q.list[0].id
		q.mu.Unlock()
		if n > 0 {
			q.tell(ctx)
		}
		list, _, err := audit.Since(q.o.Set, id, 1, func(*api.Event) bool { return true })
		if err != nil {
			return nil, err
		}
		if len(list) > 0 && list[0].ID == id {
			return &list[0], nil
		}
		q.mu.Lock() // the log has dropped it
		q.list = q.list[1:]
		q.dropped++
		q.lost++
		q.mu.Unlock()
	}
}

// took is that the target has taken the first event.
func (q *queue) took(ctx context.Context, a *notify.Attempt) {
	var lost int64
	var over bool
	q.pass(ctx, a, func() {
		lost, over = q.lost, q.told || !q.fresh // the alarm may be of the server before
		q.sent++
		q.fresh, q.failing, q.told, q.toldOf, q.lost = true, time.Time{}, false, false, 0
	})
	if !over {
		return
	}
	text := fmt.Sprintf("it is over: %s takes what it is sent", q.target.Name)
	if lost > 0 {
		text += fmt.Sprintf("; %d events were dropped, narwharf events has them", lost)
	}
	if err := q.o.Alarms.Over(ctx, q.event(text, false)); err != nil {
		q.complain(ctx, "the end of an alarm was not noted", err)
	}
}

// pass goes on from the first event, which is over in one way or another.
func (q *queue) pass(ctx context.Context, a *notify.Attempt, count func()) {
	q.mu.Lock()
	q.list, q.last = q.list[1:], a
	count()
	next := q.scanned
	if len(q.list) > 0 {
		next = q.list[0].id
	}
	q.mu.Unlock()
	if err := q.store(ctx, next); err != nil { // it is sent once more after a restart
		q.complain(ctx, "it is not stored what was sent", err)
	}
}

// failed is that an attempt failed.
func (q *queue) failed(ctx context.Context, a *notify.Attempt) {
	q.mu.Lock()
	q.last = a
	if q.failing.IsZero() {
		q.failing = a.At
	}
	late := !q.told && a.At.Sub(q.failing) >= failingAfter
	q.mu.Unlock()
	q.o.Log.Warn("a target of notify has not taken an event", "target", q.target.Name, "event", a.Event, "status", a.Status, "error", a.Error)
	if late {
		q.tell(ctx)
	}
}

// tell raises the alarm: once until something is taken, and once more when events are dropped.
func (q *queue) tell(ctx context.Context) {
	q.mu.Lock()
	text := fmt.Sprintf("%s (%s) takes nothing", q.target.Name, q.target.to())
	if !q.failing.IsZero() {
		text += " since " + q.failing.UTC().Format(time.DateTime) + " UTC"
	}
	if q.last != nil && q.last.Error != "" {
		text += ": " + q.last.Error
	}
	text += fmt.Sprintf("; %d events wait", len(q.list))
	if q.lost > 0 {
		text += fmt.Sprintf(", and the oldest are dropped, %d so far", q.lost)
	}
	again := q.told && (q.toldOf || q.lost == 0)
	q.told, q.toldOf = true, q.lost > 0
	q.mu.Unlock()
	if again {
		return
	}
	e := q.event(text, true)
	err := q.o.Set.Update(ctx, nil, func(tx *mirror.Tx) error {
		audit.Note(tx, e)
		return nil
	})
	if err != nil {
		q.complain(ctx, "an alarm was not stored", err)
	}
}

func (q *queue) event(text string, alarm bool) api.Event {
	return api.Event{Kind: "notify.failing", Alarm: alarm, Text: text, Data: map[string]string{"target": q.target.Name}}
}

// store keeps where to read on from after a restart.
func (q *queue) store(ctx context.Context, next int64) error {
	err := q.o.Set.Update(ctx, append(q.held.Locks(), "notify:"+q.target.Name), func(tx *mirror.Tx) error {
		if err := q.held.Fence(tx); err != nil {
			return err
		}
		return state.PutJSON(tx, bucket, q.target.Name, row{next})
	})
	if err == nil {
		q.stored = next
	}
	return err
}

// show is the target with what became of what it was sent.
func (q *queue) show() notify.Target {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := notify.Target{
		Name: q.target.Name, To: q.target.to(), Format: q.target.Format, Events: orNone(q.target.Events), Alarms: q.target.Alarms, Channels: orNone(q.target.Channels),
		Queued: len(q.list), Sent: q.sent, Refused: q.refused, Dropped: q.dropped, Last: q.last,
	}
	if since := q.failing; !since.IsZero() {
		t.Failing = &since
	}
	return t
}

func orNone(list []string) []string { return append([]string{}, list...) }
