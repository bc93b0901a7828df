package nixos

import (
	"strings"
	"testing"
	"time"
)

func TestWindows(t *testing.T) {
	for _, c := range []struct {
		window string
		in     []string // RFC 3339
		out    []string
		next   [2]string // after the first, the second
	}{
		{"02:00-04:00", []string{"2026-03-02T02:00:00Z", "2026-03-08T03:59:59Z"}, []string{"2026-03-02T04:00:00Z", "2026-03-02T01:59:59Z"},
			[2]string{"2026-03-02T02:00:00Z", "2026-03-03T02:00:00Z"}},
		{"Mon..Fri 02:00-04:00", []string{"2026-03-02T02:00:00Z"}, []string{"2026-03-01T02:30:00Z", "2026-03-07T02:30:00Z"},
			[2]string{"2026-03-06T05:00:00Z", "2026-03-09T02:00:00Z"}},
		{"Fri..Mon,Wed 12:00-13:00", []string{"2026-03-01T12:00:00Z", "2026-03-04T12:00:00Z", "2026-03-06T12:59:00Z"}, []string{"2026-03-03T12:00:00Z", "2026-03-05T12:00:00Z"},
			[2]string{"2026-03-02T13:00:00Z", "2026-03-04T12:00:00Z"}},
		// Past midnight: the day is that of the start.
		{"Sat 23:00-02:00", []string{"2026-03-07T23:30:00Z", "2026-03-08T01:59:00Z"}, []string{"2026-03-07T01:00:00Z", "2026-03-08T02:00:00Z", "2026-03-08T23:30:00Z"},
			[2]string{"2026-03-08T00:00:00Z", "2026-03-14T23:00:00Z"}},
		{"00:00-00:00", []string{"2026-03-07T23:30:00Z", "2026-03-08T00:00:00Z"}, nil, [2]string{"2026-03-08T00:00:00Z", "2026-03-09T00:00:00Z"}},
		// A zone: the same time of day in winter and in summer.
		{"Sun 02:00-04:00 Europe/Berlin", []string{"2026-01-04T01:30:00Z", "2026-07-05T00:30:00Z"}, []string{"2026-01-04T00:30:00Z", "2026-07-05T02:30:00Z"},
			[2]string{"2026-07-01T00:00:00Z", "2026-07-05T00:00:00Z"}},
		// The clock goes from 02:00 to 03:00 on 2026-03-29: one hour is left of it.
		{"02:00-04:00 Europe/Berlin", []string{"2026-03-29T01:30:00Z"}, []string{"2026-03-29T00:30:00Z", "2026-03-29T02:30:00Z"}, [2]string{"2026-03-29T03:00:00Z", "2026-03-30T00:00:00Z"}},
		// And from 03:00 to 02:00 on 2026-10-25: three hours.
		{"02:00-04:00 Europe/Berlin", []string{"2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"}, []string{"2026-10-24T23:30:00Z", "2026-10-25T03:30:00Z"}, [2]string{"2026-10-25T03:00:00Z", "2026-10-26T01:00:00Z"}},
	} {
		w, err := ParseWindow(c.window)
		if err != nil {
			t.Fatal(err)
		}
		at := func(text string) time.Time {
			v, err := time.Parse(time.RFC3339, text)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		for _, text := range c.in {
			if !open([]Window{w}, at(text)) {
				t.Errorf("%s: closed at %s", c.window, text)
			}
		}
		for _, text := range c.out {
			if open([]Window{w}, at(text)) {
				t.Errorf("%s: open at %s", c.window, text)
			}
		}
		if got := w.next(at(c.next[0])); !got.Equal(at(c.next[1])) {
			t.Errorf("%s: after %s the next is %s, want %s", c.window, c.next[0], got.UTC(), c.next[1])
		}
	}
	if !open(nil, time.Now()) {
		t.Error("no window is not always")
	}
	a, _ := ParseWindow("Mon 02:00-04:00")
	b, _ := ParseWindow("Wed 02:00-04:00")
	if got := opens([]Window{a, b}, time.Date(2026, 3, 3, 0, 0, 0, 0, time.UTC)); !strings.Contains(got, "Wed 2026-03-04 02:00") {
		t.Error(got)
	}
	for _, bad := range []string{"", "02:00", "Mon", "Mo 02:00-04:00", "Mon-Fri 02:00-04:00", "25:00-26:00", "02:00-04:00 Mars/Base", "Mon 02:00-04:00 UTC x", "Mon..Fri,, 02:00-04:00"} {
		if _, err := ParseWindow(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestRate(t *testing.T) {
	for text, want := range map[string]Rate{"500K": 500 << 10, "4M": 4 << 20, "1G": 1 << 30, "2048": 2048, "1": 1} {
		var r Rate
		if err := r.UnmarshalText([]byte(text)); err != nil || r != want {
			t.Errorf("%s: %v, %d", text, err, r)
		}
	}
	for _, bad := range []string{"", "0", "-1", "4 M", "4MB", "x"} {
		if new(Rate).UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
