package nar

import (
	"fmt"

	"narwharf/narinfo/clip"
)

// FormatError reports that the bytes read are not a well-formed NAR. Every other error of a
// Reader comes from the io.Reader below it (and is wrapped, so errors.Is sees it).
type FormatError struct {
	// Offset is the byte of the NAR where the offending string or number starts, or where the
	// input ended.
	Offset int64
	// Path is the entry that was being read, as in Entry.Path.
	Path string
	// Problem is the finding in words.
	Problem string

	cause error
}

// Error gives offset, entry and finding in one line of less than 900 bytes, whatever the names
// are: clients of a binary cache show an answer only if it is shorter than 1024.
func (e *FormatError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("malformed nar at byte %d: %s", e.Offset, e.Problem)
	}
	return fmt.Sprintf("malformed nar at byte %d, entry %s: %s", e.Offset, clip.Quote(e.Path, 240), e.Problem)
}

// Unwrap returns io.ErrUnexpectedEOF if the input ended inside the archive, else nil.
func (e *FormatError) Unwrap() error { return e.cause }
