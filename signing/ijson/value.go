package ijson

import (
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"narwharf/narinfo/clip"
)

// timeForm is the one form of RFC 3339 that is taken.
const timeForm = "2006-01-02T15:04:05Z"

// ParseTime reads a time of a statement.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(timeForm, s)
	// Parse takes a fraction of a second that the form does not have.
	if err != nil || t.Format(timeForm) != s {
		return t, fmt.Errorf("%q is not a time like 2026-01-31T12:00:00Z, in UTC and whole seconds", clip.Text(s, 80))
	}
	return t, nil
}

// PlainTime tells whether a time is one that a statement can have.
func PlainTime(t time.Time) bool {
	return t.Unix() >= 0 && t.Year() <= 9999 && t.Nanosecond() == 0 && t.Location() == time.UTC
}

// CheckText keeps from a text what could fool the person at whose terminal it is shown: a
// commit's title ends up in statements, and anyone may have written that.
func CheckText(value string) error {
	if !utf8.ValidString(value) {
		return errors.New("is not UTF-8")
	}
	for _, c := range value {
		bidi := c >= 0x202a && c <= 0x202e || c >= 0x2066 && c <= 0x2069
		if bidi || unicode.IsControl(c) && c != '\n' && c != '\t' {
			return fmt.Errorf("has the control character %U", c)
		}
	}
	return nil
}
