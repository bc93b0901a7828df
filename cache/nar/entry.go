package nar

import (
	"fmt"

	"narwharf/cache/nar/grammar"
)

// The limits of what is read and written here; grammar says where they come from.
const (
	MaxName   = grammar.MaxName   // bytes of a name
	MaxTarget = grammar.MaxTarget // bytes of a link's target
	MaxDepth  = grammar.MaxDepth  // nodes on one path, the root included
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
