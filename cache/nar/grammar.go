package nar

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"narwharf/narinfo/clip"
)

// Magic is the first string of every NAR.
const Magic = "nix-archive-1"

// MaxSize bounds the size of a body so that no offset in a NAR can overflow an int64.
const MaxSize = math.MaxInt64 - 1<<20

// Padding is the number of zero bytes after n bytes of a string or body.
func Padding(n int64) int { return int(-n & 7) }

// AppendString appends s as a string of a NAR.
func AppendString(dst []byte, s string) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(len(s)))
	dst = append(dst, s...)
	return append(dst, "\x00\x00\x00\x00\x00\x00\x00"[:Padding(int64(len(s)))]...)
}

// phrase is a run of fixed strings, as they stand in a NAR.
func phrase(tags ...string) string {
	var raw []byte
	for _, t := range tags {
		raw = AppendString(raw, t)
	}
	return string(raw)
}

// The runs of fixed strings, between which something else may follow.
var (
	TagBegin      = phrase(Magic, "(", "type")
	TagRegular    = phrase("regular")
	TagDirectory  = phrase("directory")
	TagSymlink    = phrase("symlink")
	TagTarget     = phrase("target")
	TagExecutable = phrase("executable")
	TagNoValue    = phrase("")
	TagContents   = phrase("contents")
	TagEntry      = phrase("entry", "(", "name")
	TagNode       = phrase("node", "(", "type")
	TagClose      = phrase(")")
	TagCloseTwo   = phrase(")", ")")
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

// CheckName is an error if a directory entry cannot have the name.
func CheckName[T string | []byte](name T) error {
	switch {
	case len(name) == 0:
		return errors.New("the name is empty")
	case len(name) > MaxName:
		return fmt.Errorf("the name is %d bytes long, the longest allowed is %d", len(name), MaxName)
	case string(name) == "." || string(name) == "..":
		return fmt.Errorf("the name %q is not allowed", name)
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return fmt.Errorf("the name %s contains a slash or a NUL byte", clip.Quote(string(name), 160))
		}
	}
	return nil
}

// CheckTarget is an error if no symbolic link can have the target.
func CheckTarget[T string | []byte](target T) error {
	switch {
	case len(target) == 0:
		return errors.New("the target of the link is empty")
	case len(target) > MaxTarget:
		return fmt.Errorf("the target of the link is %d bytes long, the longest allowed is %d", len(target), MaxTarget)
	case bytes.IndexByte([]byte(target), 0) >= 0:
		return errors.New("the target of the link contains a NUL byte")
	}
	return nil
}
