package signing

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// reader takes the fields of an object. The first that is not as it has to be
// is its error; what is read after it is worthless.
type reader struct {
	object
	err error
}

// read gives the fields of o. Names other than known are passed over, but not
// those that a careless reader would take for known ones, and not those that o
// itself calls critical (RFC 7515 has this field for the same purpose).
func read(o object, known ...string) *reader {
	r := &reader{object: o}
	for _, m := range o {
		if m.name == "crit" {
			r.fail("it needs %s, which this version does not know: a newer narwharf is needed", criticalNames(m.value))
		}
		if slices.Contains(known, m.name) {
			continue
		}
		for _, k := range append(known, "crit") {
			if m.name != k && strings.EqualFold(m.name, k) {
				r.fail("%q is not the name of a field, %q is", clipped(m.name), k)
			}
		}
	}
	return r
}

func criticalNames(v any) string {
	list, _ := v.([]any)
	var names []string
	for _, name := range list {
		if s, ok := name.(string); ok && len(names) < 4 {
			names = append(names, strconv.QuoteToASCII(clipped(s)))
		}
	}
	if len(names) == 0 {
		return "something"
	}
	return strings.Join(names, ", ")
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// field finds a value of the type T; "a string", what it is in words.
func field[T any](r *reader, name, what string) (value T) {
	i := r.find(name)
	if i < 0 {
		r.fail("%s is missing", name)
		return value
	}
	value, ok := r.object[i].value.(T)
	if !ok {
		r.fail("%s is not %s", name, what)
	}
	return value
}

func (r *reader) has(name string) bool { return r.find(name) >= 0 }

func (r *reader) null(name string) bool {
	i := r.find(name)
	return i >= 0 && r.object[i].value == nil
}

func (r *reader) string(name string) string { return field[string](r, name, "a string") }
func (r *reader) int(name string) int64     { return field[int64](r, name, "a whole number") }
func (r *reader) bool(name string) bool     { return field[bool](r, name, "true or false") }
func (r *reader) array(name string) []any   { return field[[]any](r, name, "a list") }

// sub reads the fields of an object in a field.
func (r *reader) sub(name string, known ...string) *reader {
	return read(field[object](r, name, "an object"), known...)
}

// within takes over what was wrong in a sub's fields.
func (r *reader) within(name string, s *reader) {
	if s.err != nil {
		r.fail("%s: %w", name, s.err)
	}
}

func (r *reader) digest(name string) Digest {
	s := r.string(name)
	if r.err != nil {
		return Digest{}
	}
	d, err := ParseDigest(s)
	if err != nil {
		r.fail("%s: %w", name, err)
	}
	return d
}

func (r *reader) base64(name string) []byte {
	s := r.string(name)
	if r.err != nil {
		return nil
	}
	b, err := decode64(s)
	if err != nil {
		r.fail("%s: %w", name, err)
	}
	return b
}

// decode64 reads padded standard base64 in the one form that its bytes have.
func decode64(s string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	// The standard decoder skips line breaks.
	if err != nil || len(s) != base64.StdEncoding.EncodedLen(len(b)) {
		return nil, errors.New("it is not padded base64 on one line")
	}
	return b, nil
}
