// Package grammar is what NARs are made of: strings, the fixed ones among them, and
// the bounds of names. Readers, writers and dumps of NARs share it.
package grammar

import (
	"encoding/binary"
	"math"
)

// Magic is the first string of every NAR.
const Magic = "nix-archive-1"

// A string in a NAR is its length as a little-endian 64-bit number, its bytes, and zero bytes up
// to the next multiple of 8.

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

// Phrase is a run of fixed strings of the grammar: Raw is compared and written in one go, Tags
// are looked at singly only to say which of them was wrong.
type Phrase struct {
	Raw  string
	Tags []string
}

func newPhrase(tags ...string) Phrase {
	var raw []byte
	for _, t := range tags {
		raw = AppendString(raw, t)
	}
	return Phrase{string(raw), tags}
}

// The grammar of a NAR, with every place where two phrases can follow:
//
//	archive   = begin rootNode type
//	type      = regular  [executable noValue] contents SIZE BODY PADDING close
//	          | directory { entry NAME entryNode type close } close
//	          | symlink TARGET close
var (
	Begin      = newPhrase(Magic, "(", "type")
	Regular    = newPhrase("regular")
	Directory  = newPhrase("directory")
	Symlink    = newPhrase("symlink")
	Executable = newPhrase("executable")
	NoValue    = newPhrase("")
	Contents   = newPhrase("contents")
	Target     = newPhrase("target")
	EntryOpen  = newPhrase("entry", "(", "name")
	EntryNode  = newPhrase("node", "(", "type")
	CloseOne   = newPhrase(")")
	CloseTwo   = newPhrase(")", ")")
)
