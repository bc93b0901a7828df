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
	for c := '!'; c <= '~'; c++ {
		classes[c] |= inURL
	}
}

// only reports whether every byte of s is of class c.
func only(s string, c class) bool {
	for i := range len(s) {
		if classes[s[i]]&c == 0 {
			return false
		}
	}
	return true
}

// hasControl reports whether s has a C0 control character or DEL.
func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
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
