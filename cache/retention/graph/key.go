// Package graph is who refers to whom, of all uploads of a cache, in memory: it is read
// from the index in pages and answers what roots reach, when paths were last of use, in
// which order they may go, and along which ways a path is needed.
//
// Paths are numbers in the order of their hash parts. A graph takes some 50 bytes for each,
// and 4 for each reference.
package graph

import "encoding/binary"

// hashLen is the length of a hash part in characters, keyLen in bytes: 5 bits each.
const (
	hashLen = 32
	keyLen  = 20
)

// alphabet is that of nix32, in the order of the characters.
const alphabet = "0123456789abcdfghijklmnpqrsvwxyz"

var digits = func() (d [256]byte) {
	for i := range d {
		d[i] = 0xff
	}
	for i, c := range []byte(alphabet) {
		d[c] = byte(i)
	}
	return d
}()

// Key is a hash part, packed. Keys sort as the texts do.
type Key [keyLen]byte

// ParseKey returns false for what is no hash part.
func ParseKey(hash string) (k Key, ok bool) {
	if len(hash) != hashLen {
		return k, false
	}
	var all byte
	for i := range 4 { // 8 characters are 5 bytes
		var bits uint64
		for _, c := range []byte(hash[8*i : 8*i+8]) {
			d := digits[c]
			all |= d
			bits = bits<<5 | uint64(d)
		}
		binary.BigEndian.PutUint32(k[5*i:], uint32(bits>>8))
		k[5*i+4] = byte(bits)
	}
	return k, all < 32 // 0xff is no digit
}

func (k Key) String() string {
	var text [hashLen]byte
	for i := range 4 {
		var bits uint64
		for _, b := range k[5*i : 5*i+5] {
			bits = bits<<8 | uint64(b)
		}
		for c := range 8 {
			text[8*i+c] = alphabet[bits>>(35-5*c)&31]
		}
	}
	return string(text[:])
}

// lead is the first n bits, n from 0 to 32.
func (k Key) lead(n uint) uint32 {
	return uint32(uint64(binary.BigEndian.Uint32(k[:4])) >> (32 - n))
}
