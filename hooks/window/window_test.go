package window

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"
)

func TestParse(t *testing.T) {
	isOpen := func(w ...Window) func(at time.Time) bool {
		return func(at time.Time) bool { open, _ := schedule(t, w...).State(at); return open }
	}
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
		{"00:00-00:00", []string{"2026-03-07T23:30:00Z", "2026-03-08T00:00:00Z"}, nil, [2]string{"2026-03-08T00:00:00Z", ""}},
		// A zone: the same time of day in winter and in summer.
		{"Sun 02:00-04:00 Europe/Berlin", []string{"2026-01-04T01:30:00Z", "2026-07-05T00:30:00Z"}, []string{"2026-01-04T00:30:00Z", "2026-07-05T02:30:00Z"},
			[2]string{"2026-07-01T00:00:00Z", "2026-07-05T00:00:00Z"}},
		// The clock goes from 02:00 to 03:00 on 2026-03-29: one hour is left of it.
		{"02:00-04:00 Europe/Berlin", []string{"2026-03-29T01:30:00Z"}, []string{"2026-03-29T00:30:00Z", "2026-03-29T02:30:00Z"}, [2]string{"2026-03-29T03:00:00Z", "2026-03-30T00:00:00Z"}},
		// And from 03:00 to 02:00 on 2026-10-25: three hours.
		{"02:00-04:00 Europe/Berlin", []string{"2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"}, []string{"2026-10-24T23:30:00Z", "2026-10-25T03:30:00Z"}, [2]string{"2026-10-25T03:00:00Z", "2026-10-26T01:00:00Z"}},
	} {
		w, err := Parse(c.window)
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
			if !isOpen(w)(at(text)) {
				t.Errorf("%s: closed at %s", c.window, text)
			}
		}
		for _, text := range c.out {
			if isOpen(w)(at(text)) {
				t.Errorf("%s: open at %s", c.window, text)
			}
		}
		open, next := schedule(t, w).State(at(c.next[0]))
		if open && !next.IsZero() {
			_, next = schedule(t, w).State(next)
		}
		if c.next[1] == "" && !next.IsZero() || c.next[1] != "" && !next.Equal(at(c.next[1])) {
			t.Errorf("%s: after %s the next is %s, want %s", c.window, c.next[0], next.UTC(), c.next[1])
		}
	}
	if !isOpen()(time.Now()) {
		t.Error("no window is not always")
	}
	a, _ := Parse("Mon 02:00-04:00")
	b, _ := Parse("Wed 02:00-04:00")
	both := schedule(t, a, b)
	_, next := both.State(time.Date(2026, 3, 3, 0, 0, 0, 0, time.UTC))
	if got := both.Opens(next); got != "the next window opens at Wed 2026-03-04 02:00 UTC (mon 02:00-04:00 UTC; wed 02:00-04:00 UTC)" {
		t.Error(got)
	}
	for _, bad := range []string{"", "02:00", "Mon", "Mo 02:00-04:00", "Mon-Fri 02:00-04:00", "25:00-26:00", "02:00-04:00 Mars/Base", "Mon 02:00-04:00 UTC x", "Mon..Fri,, 02:00-04:00"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// Both forms are read everywhere, with days in any case, and written as objects.
func TestForms(t *testing.T) {
	want := []Window{{Days: []string{"sat", "sun"}, From: "02:00", To: "04:00", Zone: "Europe/Berlin"}, {From: "22:00", To: "23:00"}}
	const object = `[{"days":["sat","sun"],"from":"02:00","to":"04:00","zone":"Europe/Berlin"},{"from":"22:00","to":"23:00"}]`
	for _, text := range []string{
		object,
		`["Sat,Sun 02:00-04:00 Europe/Berlin", "22:00-23:00"]`,
		`["sat..sun 2:00-4:00 Europe/Berlin", {"from":"22:00","to":"23:00"}]`,
		`[{"days":["Sat","SUN"],"from":"02:00","to":"04:00","zone":"Europe/Berlin"}, "22:00-23:00"]`,
	} {
		var got []Window
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		check(t, text, got, want)
		var file struct {
			Windows []Window `toml:"windows"`
		}
		inline := "windows = " + tomlOf(text)
		if err := toml.Unmarshal([]byte(inline), &file); err != nil {
			t.Errorf("%s: %v", inline, err)
			continue
		}
		check(t, inline, file.Windows, want)
		if out, err := json.Marshal(got); err != nil || string(out) != object {
			t.Errorf("%s is written as %s, %v", text, out, err)
		}
	}
	for _, bad := range []string{`[{"day":["sat"],"from":"02:00","to":"04:00"}]`, `["sat"]`, `[7]`} {
		if json.Unmarshal([]byte(bad), new([]Window)) == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	for _, w := range want {
		if again, err := Parse(w.String()); err != nil || again.String() != w.String() {
			t.Errorf("%s is read as %s, %v", w, again, err)
		}
	}
}

func check(t *testing.T, text string, got, want []Window) {
	t.Helper()
	for i := range got {
		if err := got[i].Check(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s is read as %+v", text, got)
	}
}

// tomlOf writes a list of the JSON above as TOML.
func tomlOf(text string) string {
	var out []byte
	for i := 0; i < len(text); i++ {
		if text[i] == ':' && text[i-1] == '"' {
			out = append(out, '=')
		} else {
			out = append(out, text[i])
		}
	}
	return string(out)
}
