// Package ijson reads the JSON of what is signed.
//
// JSON leaves open what a name that stands twice means, how large a number may be,
// and what becomes of half a surrogate pair; encoding/json moreover takes "Seq" for
// "seq". A host and whoever reviews a release must read the same in the same bytes,
// so all of it is read here: the I-JSON of RFC 7493, with whole numbers only.
//
// Parse refuses what two other parsers might see differently, Read a field whose name
// is nearly that of a known one. Fields that are not known are let through, unless the
// object names them in "crit".
package ijson

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"narwharf/narinfo/clip"
)

// Fields takes the fields of an object. The first that is not as it has to be
// is its error; what is read after it is worthless.
type Fields struct {
	Object
	Err error
}

// Read gives the fields of o. Names other than known are passed over, but not
// those that a careless reader would take for known ones, and not those that o
// itself calls critical (RFC 7515 has this field for the same purpose).
func Read(o Object, known ...string) *Fields {
	f := &Fields{Object: o}
	for _, m := range o {
		if m.Name == "crit" {
			f.Fail("it needs %s, which this version does not know: a newer narwharf is needed", criticalNames(m.Value))
		}
		if slices.Contains(known, m.Name) {
			continue
		}
		for _, k := range append(known, "crit") {
			if m.Name != k && strings.EqualFold(m.Name, k) {
				f.Fail("%q is not the name of a field, %q is", clip.Text(m.Name, 80), k)
			}
		}
	}
	return f
}

func criticalNames(v any) string {
	list, _ := v.([]any)
	var names []string
	for _, name := range list {
		if s, ok := name.(string); ok && len(names) < 4 {
			names = append(names, strconv.QuoteToASCII(clip.Text(s, 80)))
		}
	}
	if len(names) == 0 {
		return "something"
	}
	return strings.Join(names, ", ")
}

// Fail notes an error, unless there is one.
func (f *Fields) Fail(format string, args ...any) {
	if f.Err == nil {
		f.Err = fmt.Errorf(format, args...)
	}
}

// field finds a value of the type T; "a string", what it is in words.
func field[T any](f *Fields, name, what string) (value T) {
	i := f.Find(name)
	if i < 0 {
		f.Fail("%s is missing", name)
		return value
	}
	value, ok := f.Object[i].Value.(T)
	if !ok {
		f.Fail("%s is not %s", name, what)
	}
	return value
}

// Has tells whether there is a field of that name.
func (f *Fields) Has(name string) bool { return f.Find(name) >= 0 }

// Null tells whether a field is there and null.
func (f *Fields) Null(name string) bool {
	i := f.Find(name)
	return i >= 0 && f.Object[i].Value == nil
}

// String is a field that has to be there, as are the following.
func (f *Fields) String(name string) string { return field[string](f, name, "a string") }

// Int is a whole number.
func (f *Fields) Int(name string) int64 { return field[int64](f, name, "a whole number") }

// Bool is true or false.
func (f *Fields) Bool(name string) bool { return field[bool](f, name, "true or false") }

// Array is a list of any values.
func (f *Fields) Array(name string) []any { return field[[]any](f, name, "a list") }

// Sub is an object.
func (f *Fields) Sub(name string) Object { return field[Object](f, name, "an object") }

// Text is a string that parse makes something of.
func Text[T any](f *Fields, name string, parse func(string) (T, error)) (value T) {
	s := f.String(name)
	if f.Err == nil {
		v, err := parse(s)
		if err == nil {
			return v
		}
		f.Fail("%s: %w", name, err)
	}
	return value
}

// Within takes over what was wrong in the fields of an object within.
func (f *Fields) Within(name string, sub *Fields) {
	if sub.Err != nil {
		f.Fail("%s: %w", name, sub.Err)
	}
}

// Base64 reads padded standard base64 in the one form that its bytes have.
func Base64(s string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	// The standard decoder skips line breaks.
	if err != nil || len(s) != base64.StdEncoding.EncodedLen(len(b)) {
		return nil, errors.New("it is not padded base64 on one line")
	}
	return b, nil
}
