package alarm

import (
	"maps"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/alarm"
)

// over begins what ends an alarm says of itself.
const over = "it is over: "

// maxOpen bounds the alarms that are open. Above it the oldest that nobody took goes.
const maxOpen = 2000

// change is what events make of the alarms that are open.
type change struct {
	get    func(key string) *alarm.Alarm
	all    func() map[string]*alarm.Alarm // as before the change; it is asked once
	open   map[string]*alarm.Alarm        // nil: it is closed
	closed []*alarm.Alarm

	was  map[string]*alarm.Alarm // what all said
	more int                     // how many more are open than before
}

// read takes an event into account.
func (c *change) read(e *api.Event) {
	keys, all := candidates(e)
	if all {
		keys = slices.Sorted(maps.Keys(c.now()))
	}
	for _, k := range keys {
		if a := c.of(k); a != nil && ends(a, e) {
			c.close(k, a, alarm.Act{By: e.By, At: e.Time, Reason: strings.TrimPrefix(e.Text, over), Event: e.ID})
		}
	}
	if e.Alarm {
		c.raise(e)
	}
}

// of is the alarm of a key as it is now, nil if it is not open.
func (c *change) of(key string) *alarm.Alarm {
	if a, changed := c.open[key]; changed {
		return a
	}
	return c.get(key)
}

func (c *change) now() map[string]*alarm.Alarm {
	now := maps.Clone(c.before())
	for k, a := range c.open {
		if a == nil {
			delete(now, k)
		} else {
			now[k] = a
		}
	}
	return now
}

func (c *change) before() map[string]*alarm.Alarm {
	if c.was == nil {
		c.was = c.all()
	}
	return c.was
}

func (c *change) raise(e *api.Event) {
	of := subject(e.Kind, e)
	k := key(e.Kind, of)
	next := alarm.Alarm{ID: e.ID, Kind: e.Kind, Subject: of, Opened: e.Time}
	if a := c.of(k); a != nil {
		next = *a
	} else {
		c.makeRoom(e.Time)
		c.more++
	}
	next.Channel, next.Host, next.Seq, next.Text, next.Last = e.Channel, e.Host, e.Seq, e.Text, e.Time
	next.Count++
	c.open[k] = &next
}

// makeRoom is called before one more is opened.
func (c *change) makeRoom(now time.Time) {
	if len(c.before())+c.more < maxOpen {
		return
	}
	open, oldest := c.now(), ""
	for k, a := range open {
		if was := open[oldest]; was == nil || was.Taken != nil && a.Taken == nil || (was.Taken == nil) == (a.Taken == nil) && a.ID < was.ID {
			oldest = k
		}
	}
	c.close(oldest, open[oldest], alarm.Act{At: now, Reason: "so many alarms are open that the oldest make room; nothing has ended it"})
}

func (c *change) close(key string, a *alarm.Alarm, how alarm.Act) {
	is := *a
	is.Closed = &how
	c.open[key] = nil
	c.more--
	c.closed = append(c.closed, &is)
}
