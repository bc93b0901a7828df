package nar

import (
	"encoding/binary"
	"math"
)

// magic is the first string of every NAR.
const magic = "nix-archive-1"

// A string in a NAR is its length as a little-endian 64-bit number, its bytes, and zero bytes up
// to the next multiple of 8.

// maxSize bounds the size of a body so that no offset in a NAR can overflow an int64.
const maxSize = math.MaxInt64 - 1<<20

// padding is the number of zero bytes after n bytes of a string or body.
func padding(n int64) int { return int(-n & 7) }

// appendString appends s as a string of a NAR.
func appendString(dst []byte, s string) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(len(s)))
	dst = append(dst, s...)
	return append(dst, "\x00\x00\x00\x00\x00\x00\x00"[:padding(int64(len(s)))]...)
}

// phrase is a run of fixed strings of the grammar: raw is compared and written in one go, tags
// are looked at singly only to say which of them was wrong.
type phrase struct {
	raw  string
	tags []string
}

func newPhrase(tags ...string) phrase {
	var raw []byte
	for _, t := range tags {
		raw = appendString(raw, t)
	}
	return phrase{string(raw), tags}
}

// The grammar of a NAR, with every place where two phrases can follow:
//
//	archive   = begin rootNode type
//	type      = regular  [executable noValue] contents SIZE BODY PADDING close
//	          | directory { entry NAME entryNode type close } close
//	          | symlink TARGET close
var (
	begin      = newPhrase(magic, "(", "type")
	regular    = newPhrase("regular")
	directory  = newPhrase("directory")
	symlink    = newPhrase("symlink")
	executable = newPhrase("executable")
	noValue    = newPhrase("")
	contents   = newPhrase("contents")
	target     = newPhrase("target")
	entryOpen  = newPhrase("entry", "(", "name")
	entryNode  = newPhrase("node", "(", "type")
	closeOne   = newPhrase(")")
	closeTwo   = newPhrase(")", ")")
)
