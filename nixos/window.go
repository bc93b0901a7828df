package nixos

import (
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // hosts may have no zone files
)

// A Window is a time of the week, in a time zone: "Mon..Fri 02:00-04:00
// Europe/Berlin". Days may be left out (every day) or listed ("Sat,Sun"), and
// the zone may be (UTC). One whose end is not after its start lasts into the
// next day.
type Window struct {
	text  string
	days  [7]bool // of its start, by time.Weekday
	start int     // minutes of the day
	long  int     // minutes
	zone  *time.Location
}

var weekdays = []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}

// ParseWindow reads the form above.
func ParseWindow(text string) (w Window, err error) {
	w.text, w.zone = text, time.UTC
	fields := strings.Fields(text)
	bad := func() (Window, error) {
		return w, fmt.Errorf("%q is not a window like \"Mon..Fri 02:00-04:00 Europe/Berlin\"", text)
	}
	if len(fields) > 0 && !strings.Contains(fields[0], ":") {
		if !w.setDays(fields[0]) {
			return bad()
		}
		fields = fields[1:]
	} else {
		w.days = [7]bool{true, true, true, true, true, true, true}
	}
	if len(fields) < 1 || len(fields) > 2 {
		return bad()
	}
	from, to, ok := strings.Cut(fields[0], "-")
	a, errA := time.Parse("15:04", from)
	b, errB := time.Parse("15:04", to)
	if !ok || errA != nil || errB != nil {
		return bad()
	}
	w.start = a.Hour()*60 + a.Minute()
	if w.long = b.Hour()*60 + b.Minute() - w.start; w.long <= 0 {
		w.long += 24 * 60
	}
	if len(fields) == 2 {
		if w.zone, err = time.LoadLocation(fields[1]); err != nil {
			return w, fmt.Errorf("%q: %w", text, err)
		}
	}
	return w, nil
}

// setDays reads "Mon", "Sat,Sun", "Mon..Fri" and lists of these.
func (w *Window) setDays(text string) bool {
	for part := range strings.SplitSeq(text, ",") {
		from, to, span := strings.Cut(part, "..")
		if !span {
			to = from
		}
		a, b := slices.Index(weekdays, from), slices.Index(weekdays, to)
		if a < 0 || b < 0 {
			return false
		}
		for d := a; ; d = (d + 1) % 7 {
			w.days[d] = true
			if d == b {
				break
			}
		}
	}
	return true
}

// open tells whether t is in the window, by the time of day that a clock on
// the wall of its zone shows: an hour that comes twice is in it twice.
func (w Window) open(t time.Time) bool {
	t = t.In(w.zone)
	minute := t.Hour()*60 + t.Minute()
	today, yesterday := t.Weekday(), (t.Weekday()+6)%7
	return w.days[today] && minute >= w.start && minute < w.start+w.long ||
		w.days[yesterday] && minute+24*60 < w.start+w.long
}

// next is when the window opens after t.
func (w Window) next(t time.Time) time.Time {
	t = t.In(w.zone)
	for ahead := range 9 {
		from := time.Date(t.Year(), t.Month(), t.Day()+ahead, 0, w.start, 0, 0, w.zone)
		if w.days[time.Date(t.Year(), t.Month(), t.Day()+ahead, 12, 0, 0, 0, w.zone).Weekday()] && from.After(t) {
			return from
		}
	}
	return t // a window has at least one day
}

// open tells whether any of the windows is; with none it always is.
func open(windows []Window, t time.Time) bool {
	return len(windows) == 0 || slices.ContainsFunc(windows, func(w Window) bool { return w.open(t) })
}

// opens says when the next of the windows does.
func opens(windows []Window, t time.Time) string {
	first := windows[0]
	for _, w := range windows[1:] {
		if w.next(t).Before(first.next(t)) {
			first = w
		}
	}
	return fmt.Sprintf("reboot.windows: the next is at %s (%s)", first.next(t).Format("Mon 2006-01-02 15:04 MST"), first.text)
}
