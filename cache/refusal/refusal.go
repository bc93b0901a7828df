// Package refusal is how the cache says no: what kind of no it is, and one line
// of words for whoever runs `nix copy`, which prints it.
//
// A layer that refuses something knows nothing of HTTP. Which status a kind
// becomes stands in one table, in package cache.
package refusal

import (
	"errors"
	"fmt"
)

// Kind is why something is refused. It is a label of metrics and a row of
// docs/http.md.
type Kind string

// What is wrong with an upload's bytes, or with what its narinfo says of them.
const (
	Nar         Kind = "nar"
	FileHash    Kind = "filehash"
	FileSize    Kind = "filesize"
	NarHash     Kind = "narhash"
	NarSize     Kind = "narsize"
	Compression Kind = "compression"
)

// What is wrong with an upload otherwise.
const (
	Conflict         Kind = "conflict"
	Content          Kind = "content"
	Cut              Kind = "cut"
	Encoding         Kind = "encoding"
	Full             Kind = "full"
	Length           Kind = "length"
	Listing          Kind = "listing"
	MissingNar       Kind = "missing-nar"
	MissingReference Kind = "missing-reference"
	Narinfo          Kind = "narinfo"
	OtherPath        Kind = "other-path"
	Signature        Kind = "signature"
	Stalled          Kind = "stalled"
	StoreDir         Kind = "store-dir"
	TooLarge         Kind = "too-large"
	Unsigned         Kind = "unsigned"
	Waiting          Kind = "waiting"
)

// What is wrong with a local path that should become an upload.
const (
	Gone         Kind = "gone"
	LocalDiffers Kind = "local-differs"
)

// What is wrong with a request, or with what it asks for.
const (
	Away        Kind = "away"
	Busy        Kind = "busy"
	Condition   Kind = "condition"
	Denied      Kind = "denied"
	Internal    Kind = "internal"
	LocalBroken Kind = "local-broken"
	LocalStore  Kind = "local-store"
	Method      Kind = "method"
	Missing     Kind = "missing"
	Name        Kind = "name"
	NoRoom      Kind = "no-room"
	NotReady    Kind = "not-ready"
	Range       Kind = "range"
	Stopping    Kind = "stopping"
	Upstream    Kind = "upstream"
)

// Error is a refusal. Text is one line: what is wrong and what to do.
type Error struct {
	Kind Kind
	Text string
}

// New makes a refusal of a format and its arguments.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{kind, fmt.Sprintf(format, args...)}
}

// Error returns the line.
func (e *Error) Error() string { return e.Text }

// Conflict tells that the cache has another content under the name: trying
// again does not help.
func (e *Error) Conflict() bool { return e.Kind == Conflict }

// Unavailable tells that the fault is ours and may pass: try again.
func (e *Error) Unavailable() bool {
	return e.Kind == LocalStore || e.Kind == Stopping || e.Kind == Busy || e.Kind == Away
}

// In returns the refusal in a chain of errors, nil if there is none.
func In(err error) *Error {
	var r *Error
	errors.As(err, &r)
	return r
}

// Of passes refusals on, and makes one of another fault of content.
func Of(err error, kind Kind) error {
	if In(err) != nil {
		return err
	}
	return New(kind, "%s: %v", kind, err)
}

// Size prints a number of bytes for people.
func Size(n int64) string {
	for _, u := range []string{"bytes", "KiB", "MiB", "GiB"} {
		if n < 10<<10 {
			return fmt.Sprintf("%d %s", n, u)
		}
		n >>= 10
	}
	return fmt.Sprintf("%d TiB", n)
}
