package alarm

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/api/alarm"
	"narwharf/narinfo/clip"
)

const maxReason = 1000 // bytes

// Caller is who asks, and what he may see and do. A channel of "" is that of an alarm of none.
type Caller struct {
	Name string
	Sees func(channel string) bool
	May  func(channel string) error
}

// List is the alarms that are meant and that the caller sees, the newest first.
func (b *Book) List(ctx context.Context, q alarm.Query, who Caller) ([]alarm.Alarm, error) {
	if err := b.CatchUp(ctx); err != nil {
		return nil, err
	}
	list := []alarm.Alarm{}
	add := func(a *alarm.Alarm) {
		if (q.Channel == "" || a.Channel == q.Channel) && who.Sees(a.Channel) {
			list = append(list, *a)
		}
	}
	if !q.Closed {
		for _, a := range b.open.All() {
			add(a)
		}
		slices.SortFunc(list, func(x, y alarm.Alarm) int { return cmp.Compare(y.ID, x.ID) })
		return list, nil
	}
	var page []state.Entry
	err := b.set.View(func(tx state.Reader) (err error) {
		page, err = tx.List(closedBucket, state.Range{Reverse: true, Limit: maxClosed})
		return err
	})
	for _, e := range page {
		a := new(alarm.Alarm)
		if err := json.Unmarshal(e.Value, a); err != nil {
			b.set.Skip(fmt.Sprintf("%s %x", closedBucket, e.Key), err)
			continue
		}
		add(a)
	}
	return list, err
}

// Take says that the caller looks after an alarm.
func (b *Book) Take(ctx context.Context, id, reason string, who Caller) (*alarm.Alarm, error) {
	return b.act(ctx, id, who, func(tx *mirror.Tx, key string, a *alarm.Alarm) {
		text := fmt.Sprintf("%s took the alarm %s", who.Name, title(a))
		if t := a.Taken; t != nil && t.By != who.Name {
			text += ", which " + t.By + " had"
		}
		a.Taken = &alarm.Act{By: who.Name, At: tx.Time.UTC().Truncate(time.Second), Reason: clip.Line(reason, maxReason)}
		b.open.Put(tx, key, a)
		note(tx, "alarm.taken", a, who.Name, because(text, reason))
	})
}

// Close ends an alarm, whatever it is about. If that goes on, the next event opens another one.
func (b *Book) Close(ctx context.Context, id, reason string, who Caller) (*alarm.Alarm, error) {
	if reason == "" {
		return nil, api.Errorf(api.BadRequest, `send {"reason":"…"}: why is it over?`)
	}
	return b.act(ctx, id, who, func(tx *mirror.Tx, key string, a *alarm.Alarm) {
		a.Closed = &alarm.Act{By: who.Name, At: tx.Time.UTC().Truncate(time.Second), Reason: clip.Line(reason, maxReason)}
		b.open.Put(tx, key, nil)
		tx.Keep(state.PutJSON(tx, closedBucket, closedKey(a.ID), a))
		trim(tx)
		note(tx, "alarm.closed", a, who.Name, because(fmt.Sprintf("%s closed the alarm %s", who.Name, title(a)), reason))
	})
}

func because(text, reason string) string {
	if reason == "" {
		return text
	}
	return text + ": " + clip.Line(reason, maxReason)
}

// checkID reads the id of an alarm.
func checkID(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || n >= 1<<53 || text[0] == '0' || text[0] == '+' {
		return 0, api.Errorf(api.BadRequest, "%q is not the id of an alarm: narwharf alarm list has them", clip.Line(text, 50))
	}
	return n, nil
}

// Check says whether the caller may act on an alarm, before the rest of what he sends is read. Of one
// that is not open Take and Close say what became of it.
func (b *Book) Check(ctx context.Context, text string, who Caller) error {
	id, err := checkID(text)
	if err == nil {
		err = b.CatchUp(ctx)
	}
	if err != nil {
		return err
	}
	if key, channel := b.find(id); key != "" {
		return who.May(channel)
	}
	return nil
}

// act has do change an alarm that is open, if the caller may.
func (b *Book) act(ctx context.Context, text string, who Caller, do func(tx *mirror.Tx, key string, a *alarm.Alarm)) (is *alarm.Alarm, err error) {
	if err := b.Check(ctx, text, who); err != nil {
		return nil, err
	}
	id, err := checkID(text)
	if err != nil {
		return nil, err
	}
	key, _ := b.find(id)
	if key == "" {
		return nil, b.absent(id, who)
	}
	err = b.set.Update(ctx, []string{lock}, func(tx *mirror.Tx) error {
		is = b.open.In(tx, key)
		if is == nil || is.ID != id {
			is = nil
			return nil
		}
		do(tx, key, is)
		return nil
	})
	if err == nil && is == nil {
		err = b.absent(id, who)
	}
	return is, err
}

func (b *Book) find(id int64) (key, channel string) {
	for k, a := range b.open.All() {
		if a.ID == id {
			return k, a.Channel
		}
	}
	return "", ""
}

// absent says what became of an alarm that is not open.
func (b *Book) absent(id int64, who Caller) error {
	var a *alarm.Alarm
	err := b.set.View(func(tx state.Reader) (err error) {
		a, err = state.GetJSON[alarm.Alarm](tx, closedBucket, closedKey(id))
		return err
	})
	switch {
	case err != nil:
		return err
	case a == nil || !who.Sees(a.Channel):
		return api.Errorf(api.NotFound, "no alarm %d is open: narwharf alarm list has those that are", id)
	}
	return api.Errorf(api.NotFound, "the alarm %d (%s) was closed at %s: %s", id, title(a), api.TimeText(a.Closed.At), clip.Line(a.Closed.Reason, maxReason))
}
