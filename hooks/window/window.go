// Package window is maintenance windows: times of the day on some days of the
// week, in a time zone. Server and agent read them by the same grammar, and open
// and close them by the same rule:
//
// A window opens at the first moment at which the zone's clocks show From or
// later, and closes likewise at To. So of a time that the clocks show twice the
// first counts, and a window that lies within an hour that they skip does not
// open that day. With To not after From it lasts into the next day; with both
// the same, for a day.
//
// A window is written as an object,
//
//	{"days": ["sat", "sun"], "from": "22:00", "to": "04:00", "zone": "Europe/Berlin"}
//
// or as a string, in which days may be spans and lists and may be left out for
// every day, and the zone may be left out for UTC:
//
//	Mon..Fri 02:00-04:00 Europe/Berlin
//
// Both are read everywhere. Objects are what is stored and answered.
package window

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // machines may have no zone files
)

// A Window is one that Check has found nothing wrong with, or a text that was
// not checked.
type Window struct {
	Days []string `json:"days,omitempty" toml:"days"` // on which it opens: "mon" to "sun", in any case; none: each
	From string   `json:"from" toml:"from"`           // "22:00"
	To   string   `json:"to" toml:"to"`               // "04:00"
	Zone string   `json:"zone,omitempty" toml:"zone"` // as "Europe/Berlin"; UTC if empty; "Local": this machine's
}

// Weekdays are the names of days, by time.Weekday.
var Weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

var clockGrammar = regexp.MustCompile(`^(?:[01]\d|2[0-3]):[0-5]\d$`)

// Parse reads the string form. What it returns is checked.
func Parse(text string) (Window, error) {
	var w Window
	fields := strings.Fields(text)
	bad := fmt.Errorf("%q is not a window like \"Mon..Fri 02:00-04:00 Europe/Berlin\"", text)
	if len(fields) > 0 && !strings.Contains(fields[0], ":") {
		if w.Days = spans(fields[0]); w.Days == nil {
			return Window{}, bad
		}
		fields = fields[1:]
	}
	if len(fields) < 1 || len(fields) > 2 {
		return Window{}, bad
	}
	w.From, w.To, _ = strings.Cut(fields[0], "-")
	for _, clock := range []*string{&w.From, &w.To} {
		if strings.IndexByte(*clock, ':') == 1 {
			*clock = "0" + *clock // "2:00", as people write it
		}
	}
	if len(fields) == 2 {
		w.Zone = fields[1]
	}
	if err := w.Check(); err != nil {
		return Window{}, fmt.Errorf("%w: %w", bad, err)
	}
	return w, nil
}

// spans reads "Mon", "Sat,Sun", "Mon..Fri" and lists of these, nil if it is none.
func spans(text string) (days []string) {
	for part := range strings.SplitSeq(strings.ToLower(text), ",") {
		from, to, span := strings.Cut(part, "..")
		if !span {
			to = from
		}
		a, b := slices.Index(Weekdays, from), slices.Index(Weekdays, to)
		if a < 0 || b < 0 {
			return nil
		}
		for d := a; ; d = (d + 1) % 7 {
			if !slices.Contains(days, Weekdays[d]) {
				days = append(days, Weekdays[d])
			}
			if d == b {
				break
			}
		}
	}
	return days
}

// Check says what is wrong with a window, and writes its days in lower case.
func (w *Window) Check() error {
	days := slices.Clone(w.Days)
	for i, d := range days {
		days[i] = strings.ToLower(d)
		if !slices.Contains(Weekdays, days[i]) || slices.Contains(days[:i], days[i]) {
			return fmt.Errorf("day %q of a window is none of mon, tue, wed, thu, fri, sat, sun, or is there twice", d)
		}
	}
	w.Days = days
	for _, t := range []string{w.From, w.To} {
		if !clockGrammar.MatchString(t) {
			return fmt.Errorf("%q of a window is not a time like 22:00", t)
		}
	}
	if _, err := time.LoadLocation(w.Zone); err != nil {
		return fmt.Errorf("zone %q of a window: %w", w.Zone, err)
	}
	return nil
}

// String is the string form, which Parse reads.
func (w Window) String() string {
	text := w.From + "-" + w.To + " UTC"
	if w.Zone != "" {
		text = w.From + "-" + w.To + " " + w.Zone
	}
	if len(w.Days) > 0 {
		text = strings.Join(w.Days, ",") + " " + text
	}
	return text
}

// UnmarshalText reads the string form.
func (w *Window) UnmarshalText(text []byte) (err error) {
	*w, err = Parse(string(text))
	return err
}

// UnmarshalJSON reads either form. A key that it does not know is an error, since
// a misspelt one would be a rule that nobody keeps.
func (w *Window) UnmarshalJSON(text []byte) error {
	var s string
	if json.Unmarshal(text, &s) == nil {
		return w.UnmarshalText([]byte(s))
	}
	type object Window // without methods
	var o object
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil {
		return err
	}
	*w = Window(o)
	return nil
}
