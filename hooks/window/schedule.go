package window

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Schedule is some windows, in a form to ask. None of them is always.
type Schedule []span

type span struct {
	text     string
	days     [7]bool // on which it opens, by time.Weekday
	from, to int     // minutes of the day; to may be one of the next day
	zone     *time.Location
}

// NewSchedule checks the windows, and returns what is wrong with the first that
// is wrong.
func NewSchedule(windows []Window) (Schedule, error) {
	var all Schedule
	for _, w := range windows {
		if err := w.Check(); err != nil {
			return nil, err
		}
		s := span{text: w.String(), from: minutes(w.From), to: minutes(w.To)}
		s.zone, _ = time.LoadLocation(w.Zone) // Check did
		if s.to <= s.from {
			s.to += 24 * 60
		}
		for i, name := range Weekdays {
			s.days[i] = len(w.Days) == 0 || slices.Contains(w.Days, name)
		}
		all = append(all, s)
	}
	return all, nil
}

// minutes reads what clockGrammar takes.
func minutes(clock string) int {
	t, _ := time.Parse("15:04", clock)
	return t.Hour()*60 + t.Minute()
}

// horizon is how many days ahead windows are looked at: each opens once a week
// at least, but for a week in which the clocks skip it.
const horizon = 15

// State tells whether any of the windows is open, and when that changes; with
// no windows, or with some that leave no gap, that is zero.
func (s Schedule) State(now time.Time) (open bool, next time.Time) {
	if len(s) == 0 {
		return true, time.Time{}
	}
	type interval struct{ from, to time.Time }
	var intervals []interval
	for _, w := range s {
		year, month, day := now.In(w.zone).Date()
		for d := -2; d <= horizon; d++ {
			if date := time.Date(year, month, day+d, 12, 0, 0, 0, time.UTC); w.days[date.Weekday()] {
				i := interval{firstAt(date, w.from, w.zone), firstAt(date, w.to, w.zone)}
				if i.from.Before(i.to) && i.to.After(now) {
					intervals = append(intervals, i)
				}
			}
		}
	}
	slices.SortFunc(intervals, func(a, b interval) int { return a.from.Compare(b.from) })
	for _, i := range intervals {
		switch {
		case i.from.After(now) && !open:
			return false, i.from
		case !open:
			open, next = true, i.to
		case i.from.After(next):
			return true, next
		case i.to.After(next):
			next = i.to
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

// Opens says, for people, when the next window does, which State has told.
func (s Schedule) Opens(next time.Time) string {
	var texts []string
	for _, w := range s {
		texts = append(texts, w.text)
	}
	if next.IsZero() {
		return "windows: " + strings.Join(texts, "; ")
	}
	return fmt.Sprintf("the next window opens at %s (%s)", next.In(s[0].zone).Format("Mon 2006-01-02 15:04 MST"), strings.Join(texts, "; "))
}
