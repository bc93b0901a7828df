package window

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func schedule(t interface{ Fatal(...any) }, list ...Window) Schedule {
	s, err := NewSchedule(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestState(t *testing.T) {
	night := Window{From: "22:00", To: "04:00", Zone: "Europe/Berlin"}
	weekdays := Window{Days: []string{"mon", "tue", "wed", "thu", "fri"}, From: "02:00", To: "03:00", Zone: "Europe/Berlin"}
	friday := Window{Days: []string{"fri"}, From: "22:00", To: "04:00", Zone: "America/New_York"}
	for _, c := range []struct {
		name    string
		windows []Window
		at      string
		open    bool
		next    string // "" for never
	}{
		{"none", nil, "2026-11-21T12:00:00Z", true, ""},
		{"all the time", []Window{{From: "00:00", To: "00:00"}}, "2026-11-21T12:00:00Z", true, ""},
		{"all the time by two", []Window{{From: "20:00", To: "08:00"}, {From: "08:00", To: "20:00"}}, "2026-11-21T12:00:00Z", true, ""},
		{"by day", []Window{night}, "2026-11-21T12:00:00Z", false, "2026-11-21T21:00:00Z"},
		{"just before", []Window{night}, "2026-11-21T20:59:59Z", false, "2026-11-21T21:00:00Z"},
		{"opens", []Window{night}, "2026-11-21T21:00:00Z", true, "2026-11-22T03:00:00Z"},
		{"past midnight", []Window{night}, "2026-11-22T02:59:59Z", true, "2026-11-22T03:00:00Z"},
		{"closes", []Window{night}, "2026-11-22T03:00:00Z", false, "2026-11-22T21:00:00Z"},
		{"in summer", []Window{night}, "2026-07-01T20:00:00Z", true, "2026-07-02T02:00:00Z"},
		{"two that overlap", []Window{night, {From: "02:30", To: "06:00"}}, "2026-11-22T02:00:00Z", true, "2026-11-22T06:00:00Z"},
		{"two that touch", []Window{night, {From: "03:00", To: "06:00"}}, "2026-11-22T02:00:00Z", true, "2026-11-22T06:00:00Z"},
		{"the day it opens counts", []Window{friday}, "2026-11-21T08:00:00Z", true, "2026-11-21T09:00:00Z"},
		{"not on Thursday", []Window{friday}, "2026-11-20T04:00:00Z", false, "2026-11-21T03:00:00Z"},
		{"over the weekend", []Window{weekdays}, "2026-11-20T02:00:00Z", false, "2026-11-23T01:00:00Z"},

		// Berlin's clocks skip 02:00 to 03:00 on 2026-03-29 and show it twice on 2026-10-25.
		{"the night of the skip", []Window{night}, "2026-03-28T21:00:00Z", true, "2026-03-29T02:00:00Z"},
		{"before it is skipped", []Window{{From: "01:30", To: "02:30", Zone: "Europe/Berlin"}}, "2026-03-29T00:45:00Z", true, "2026-03-29T01:00:00Z"},
		{"it begins in the skip", []Window{{From: "02:30", To: "04:00", Zone: "Europe/Berlin"}}, "2026-03-29T00:59:59Z", false, "2026-03-29T01:00:00Z"},
		{"and is open from then", []Window{{From: "02:30", To: "04:00", Zone: "Europe/Berlin"}}, "2026-03-29T01:00:00Z", true, "2026-03-29T02:00:00Z"},
		{"skipped as a whole", []Window{{From: "02:10", To: "02:50", Zone: "Europe/Berlin"}}, "2026-03-28T12:00:00Z", false, "2026-03-30T00:10:00Z"},
		{"the night of the repeat", []Window{night}, "2026-10-24T20:00:00Z", true, "2026-10-25T03:00:00Z"},
		{"it ends in the first pass", []Window{{From: "01:00", To: "02:30", Zone: "Europe/Berlin"}}, "2026-10-24T23:00:00Z", true, "2026-10-25T00:30:00Z"},
		{"and not again", []Window{{From: "01:00", To: "02:30", Zone: "Europe/Berlin"}}, "2026-10-25T01:15:00Z", false, "2026-10-26T00:00:00Z"},
		{"it begins in the first pass", []Window{{From: "02:30", To: "03:30", Zone: "Europe/Berlin"}}, "2026-10-25T00:30:00Z", true, "2026-10-25T02:30:00Z"},
		{"half an hour", []Window{{From: "02:15", To: "05:00", Zone: "Australia/Lord_Howe"}}, "2026-10-03T12:00:00Z", false, "2026-10-03T15:30:00Z"},
	} {
		now, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		open, next := schedule(t, c.windows...).State(now)
		got := ""
		if !next.IsZero() {
			got = next.UTC().Format(time.RFC3339)
		}
		if open != c.open || got != c.next {
			t.Errorf("%s: at %s open %v until %q, want %v until %q", c.name, c.at, open, got, c.open, c.next)
		}
	}
}

// TestStateByTheMinute compares with a walk through time, minute by minute,
// over the weeks in which clocks are changed.
func TestStateByTheMinute(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := Window{
			Zone: rapid.SampledFrom([]string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kolkata", "UTC", ""}).Draw(rt, "zone"),
			From: clockText(rt, "from"), To: clockText(rt, "to"),
		}
		for i, d := range Weekdays {
			if rapid.IntRange(0, 2).Draw(rt, d) == 0 {
				w.Days = append(w.Days, Weekdays[i])
			}
		}
		ws := schedule(rt, w)
		week := rapid.SampledFrom([]string{"2026-03-07", "2026-03-28", "2026-04-04", "2026-06-10", "2026-09-05", "2026-10-03", "2026-10-24", "2026-10-31"}).Draw(rt, "week")
		start, err := time.Parse(time.DateOnly, week)
		if err != nil {
			rt.Fatal(err)
		}
		var next time.Time
		was := false
		for i := range 3 * 24 * 4 {
			now := start.Add(time.Duration(i) * 15 * time.Minute)
			want := openByWalk(ws[0], now)
			open, n := ws.State(now)
			if open != want {
				rt.Fatalf("%+v at %s (%s): open %v, want %v", w, now.Format(time.RFC3339), now.In(ws[0].zone), open, want)
			}
			// What was said about the next change came true, not before.
			if i > 0 && !next.IsZero() && now.Before(next) && open != was {
				rt.Fatalf("%+v at %s: it changed before %s", w, now, next)
			}
			if i > 0 && !next.IsZero() && !now.Before(next) && now.Sub(next) < 15*time.Minute && open == was && w.From != w.To {
				if o, _ := ws.State(next); o == was {
					rt.Fatalf("%+v at %s: nothing changed at %s", w, now, next)
				}
			}
			was, next = open, n
		}
	})
}

func clockText(rt *rapid.T, what string) string {
	return fmt.Sprintf("%02d:%02d", rapid.SampledFrom([]int{0, 1, 2, 3, 4, 12, 22, 23}).Draw(rt, what), 15*rapid.IntRange(0, 3).Draw(rt, what+" minute"))
}

// openByWalk is the definition in the comment of this package, taken literally.
func openByWalk(w span, now time.Time) bool {
	first := func(date time.Time, minute int) time.Time {
		want := date.Add(time.Duration(minute) * time.Minute) // on the wall, as if it were UTC
		for t := date.Add(-16 * time.Hour); ; t = t.Add(15 * time.Minute) {
			l := t.In(w.zone)
			wall := time.Date(l.Year(), l.Month(), l.Day(), l.Hour(), l.Minute(), 0, 0, time.UTC)
			if !wall.Before(want) {
				return t
			}
		}
	}
	for back := range 3 {
		l := now.In(w.zone)
		date := time.Date(l.Year(), l.Month(), l.Day()-back, 0, 0, 0, 0, time.UTC)
		if w.days[date.Weekday()] && !now.Before(first(date, w.from)) && now.Before(first(date, w.to)) {
			return true
		}
	}
	return false
}
