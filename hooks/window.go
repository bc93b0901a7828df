package hooks

import (
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // servers may have no zone files

	"narwharf/hooks/api"
)

// windows are the maintenance windows of a channel, in a form to ask.
type windows []window

type window struct {
	text     string
	days     [7]bool // on which it opens, by time.Weekday
	from, to int     // minutes of the day; to may be one of the next day
	zone     *time.Location
}

// newWindows takes what api.ChannelPolicy.Check found to be right.
func newWindows(list []api.Window) (windows, error) {
	var all windows
	for _, a := range list {
		w := window{text: a.From + "-" + a.To}
		from, err := time.Parse("15:04", a.From)
		if err != nil {
			return nil, err
		}
		to, err := time.Parse("15:04", a.To)
		if err != nil {
			return nil, err
		}
		if w.zone, err = time.LoadLocation(a.Zone); err != nil {
			return nil, err
		}
		w.from, w.to = from.Hour()*60+from.Minute(), to.Hour()*60+to.Minute()
		if w.to <= w.from {
			w.to += 24 * 60
		}
		for i, name := range api.Weekdays {
			w.days[i] = len(a.Days) == 0 || slices.Contains(a.Days, name)
		}
		if len(a.Days) > 0 {
			w.text = strings.Join(a.Days, ",") + " " + w.text
		}
		w.text += " " + w.zone.String()
		all = append(all, w)
	}
	return all, nil
}

// horizon is how many days ahead windows are looked at: each opens once a week
// at least, but for a week in which the clocks skip it.
const horizon = 15

// state tells whether any of the windows is open, and when that changes; with
// no windows, or with some that leave no gap, that is zero.
func (ws windows) state(now time.Time) (open bool, next time.Time) {
	if len(ws) == 0 {
		return true, time.Time{}
	}
	type span struct{ from, to time.Time }
	var spans []span
	for _, w := range ws {
		year, month, day := now.In(w.zone).Date()
		for d := -2; d <= horizon; d++ {
			if date := time.Date(year, month, day+d, 12, 0, 0, 0, time.UTC); w.days[date.Weekday()] {
				s := span{firstAt(date, w.from, w.zone), firstAt(date, w.to, w.zone)}
				if s.from.Before(s.to) && s.to.After(now) {
					spans = append(spans, s)
				}
			}
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return a.from.Compare(b.from) })
	for _, s := range spans {
		switch {
		case s.from.After(now) && !open:
			return false, s.from
		case !open:
			open, next = true, s.to
		case s.from.After(next):
			return true, next
		case s.to.After(next):
			next = s.to
		}
	}
	if open && next.Sub(now) > (horizon-2)*24*time.Hour {
		next = time.Time{}
	}
	return open, next
}

// firstAt is the first moment at which the clocks of a zone show the given
// minute of a date, or a later one if they skip it.
func firstAt(date time.Time, minute int, zone *time.Location) time.Time {
	year, month, day := date.Date()
	wall := time.Date(year, month, day, 0, minute, 0, 0, time.UTC) // what the clocks show
	guess := time.Date(year, month, day, 0, minute, 0, 0, zone)
	var late time.Time
	for _, near := range []time.Duration{-3 * time.Hour, 3 * time.Hour} { // on either side of a change
		_, offset := guess.Add(near).Zone()
		t := wall.Add(-time.Duration(offset) * time.Second).In(zone)
		if t.Hour()*60+t.Minute() == minute%(24*60) && t.Day() == wall.Day() {
			return t
		}
		if t.After(late) {
			late = t
		}
	}
	if change, _ := late.ZoneBounds(); !change.IsZero() {
		return change
	}
	return late
}

// opens says when the next window does, for people.
func (ws windows) opens(next time.Time) string {
	var texts []string
	for _, w := range ws {
		texts = append(texts, w.text)
	}
	if next.IsZero() {
		return "windows: " + strings.Join(texts, "; ")
	}
	return fmt.Sprintf("the next window opens at %s (%s)", next.In(ws[0].zone).Format("Mon 2006-01-02 15:04 MST"), strings.Join(texts, "; "))
}
