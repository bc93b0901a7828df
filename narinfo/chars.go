package narinfo

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nix-community/go-nix/pkg/nixbase32"

	"narwharf/narinfo/clip"
)

// class is a set of properties of one byte.
type class uint8

const (
	inName        class = 1 << iota // store path names
	inCompression                   // Compression tokens
	inURL                           // printable ASCII without the space
	inBase64                        // the digits of standard base64, without "="
	inDigest                        // digits of any base that Nix prints hashes in
	inNix32                         // the digits of Nix's base 32
	control                         // C0 and DEL
)

var classes [256]class

func init() {
	set := func(s string, c class) {
		for i := range len(s) {
			classes[s[i]] |= c
		}
	}
	const digits, lower, upper = "0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	set(digits+lower+upper+"+-._?=", inName)
	set(digits+lower+"-", inCompression)
	set(digits+lower+upper+"+/", inBase64|inDigest)
	set("=", inDigest)
	set(nixbase32.Alphabet, inNix32)
	for c := range 256 {
		switch {
		case c < 0x20 || c == 0x7f:
			classes[c] |= control
		case c > 0x20 && c < 0x7f:
			classes[c] |= inURL
		}
	}
}

// only reports whether every byte of s is of class c. Eight at a time: the
// look-ups do not wait for each other.
func only(s string, c class) bool {
	all := c
	for ; len(s) >= 8; s = s[8:] {
		all &= classes[s[0]] & classes[s[1]] & classes[s[2]] & classes[s[3]] &
			classes[s[4]] & classes[s[5]] & classes[s[6]] & classes[s[7]]
	}
	for i := range len(s) {
		all &= classes[s[i]]
	}
	return all != 0
}

// hasControl reports whether s has a C0 control character or DEL.
func hasControl(s string) bool {
	var union class
	for i := range len(s) {
		union |= classes[s[i]]
	}
	return union&control != 0
}

// ValidKeyName reports whether s can be the name of a signing key: not empty,
// no colon (it ends the name), no white space and nothing that does not print,
// because names stand in narinfos, in nix.conf and in messages.
func ValidKeyName(s string) bool {
	if s == "" {
		return false
	}
	if only(s, inURL) {
		return strings.IndexByte(s, ':') < 0
	}
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r == ':' || r == ' ' || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// quote is s in double quotes for a message: on one line, without control
// characters, and cut to a length that leaves room for the words.
func quote(s string) string { return clip.Quote(s, 120) }
