package nar

import (
	"fmt"

	"narwharf/narinfo/clip"
)

// Type says what an entry is. The zero Type is none of them.
type Type uint8

// The types of file that a NAR can hold.
const (
	Regular Type = iota + 1
	Directory
	Symlink
)

// String returns the word that NARs and listings use: "regular", "directory" or "symlink".
func (t Type) String() string {
	switch t {
	case Regular:
		return "regular"
	case Directory:
		return "directory"
	case Symlink:
		return "symlink"
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// Entry describes one file, directory or link of a NAR.
type Entry struct {
	// Path is relative to the root of the NAR, without leading or trailing slash: "" is the root
	// itself, "bin/run" a file two levels down. It is bytes, not necessarily UTF-8.
	Path string
	Type Type
	// Executable is the owner's execute bit of a regular file; false for everything else.
	Executable bool
	// Size is the length of a regular file's body in bytes; 0 for everything else.
	Size int64
	// Target is what a symbolic link points at, uninterpreted; "" for everything else.
	Target string
	// Offset is where a regular file's body starts, in bytes from the start of the NAR (narOffset
	// in listings); 0 for everything else.
	Offset int64
}

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
