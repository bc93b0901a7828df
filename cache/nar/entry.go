package nar

import (
	"bytes"
	"fmt"

	"narwharf/narinfo/clip"
)

// The limits of Nix's own reader (src/libutil/archive.cc, since the security releases 2.33.6 and
// 2.34.7). Nix documents no limit; what exceeds these could be stored here but not be fetched by
// a current Nix.
const (
	// MaxName is the longest name of a directory entry, in bytes.
	MaxName = 255
	// MaxTarget is the longest target of a symbolic link, in bytes.
	MaxTarget = 4095
	// MaxDepth is how many nodes may lie on one path, the root included: a path in a NAR has at
	// most MaxDepth-1 names.
	MaxDepth = 64
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
	// in listings); 0 for everything else. The Writer ignores it.
	Offset int64
}

// badName says what is wrong with the name of a directory entry, or "" if nothing is.
func badName[T string | []byte](name T) string {
	switch {
	case len(name) == 0:
		return "the name is empty"
	case len(name) > MaxName:
		return fmt.Sprintf("the name is %d bytes long, the longest allowed is %d", len(name), MaxName)
	case string(name) == "." || string(name) == "..":
		return fmt.Sprintf("the name %q is not allowed", name)
	}
	for i := 0; i < len(name); i++ {
		if name[i] == '/' || name[i] == 0 {
			return fmt.Sprintf("the name %s contains a slash or a NUL byte", clip.Quote(string(name), 160))
		}
	}
	return ""
}

// badTarget says what is wrong with the target of a symbolic link, or "" if nothing is.
func badTarget[T string | []byte](target T) string {
	switch {
	case len(target) == 0:
		return "the target of the link is empty"
	case len(target) > MaxTarget:
		return fmt.Sprintf("the target of the link is %d bytes long, the longest allowed is %d", len(target), MaxTarget)
	case bytes.IndexByte([]byte(target), 0) >= 0:
		return "the target of the link contains a NUL byte"
	}
	return ""
}
