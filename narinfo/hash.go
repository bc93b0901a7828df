package narinfo

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Hash is a SHA-256. The zero value means there is none; every parser here
// refuses thirty-two zero bytes so that the two cannot be confused.
type Hash [32]byte

const (
	base32Len    = 52 // characters of 32 bytes in nix32
	hashPrefix   = "sha256:"
	sriPrefix    = "sha256-"
	nix32Letters = "0123456789abcdfghijklmnpqrsvwxyz"
)

var errZeroHash = errors.New("it is all zeros, which no content has")

// ParseHash reads "sha256:" with 52 characters of nix32 or 64 of base 16, or
// SRI, "sha256-" with padded base64. The alphabet follows from the length, as
// in Hash::parseAny of Nix. Another algorithm is an error that says so.
func ParseHash(s string) (Hash, error) {
	h, err := decodeHash(s)
	if err != nil {
		return Hash{}, fmt.Errorf("hash %s: %w", quote(s), err)
	}
	return h, nil
}

// ParseBase32 reads the 52 characters of nix32 alone.
func ParseBase32(s string) (Hash, error) {
	var h Hash
	if err := h.setBase32(s); err != nil {
		return Hash{}, fmt.Errorf("hash %s: %w", quote(s), err)
	}
	return h, nil
}

// String is "sha256:<52 characters of nix32>", also for the zero value.
func (h Hash) String() string {
	return string(h.append(make([]byte, 0, len(hashPrefix)+base32Len)))
}

// Base32 is the 52 characters of nix32 alone.
func (h Hash) Base32() string {
	return string(h.appendBase32(make([]byte, 0, base32Len)))
}

// IsZero reports whether there is no hash.
func (h Hash) IsZero() bool { return h == Hash{} }

func decodeHash(s string) (Hash, error) {
	var h Hash
	if digits, ok := strings.CutPrefix(s, hashPrefix); ok {
		switch len(digits) {
		case base32Len:
			return h, h.setBase32(digits)
		case hex.EncodedLen(len(h)):
			if _, err := hex.Decode(h[:], []byte(digits)); err != nil {
				return Hash{}, errors.New("it has 64 digits and they are not all base 16")
			}
		default:
			return Hash{}, fmt.Errorf("%d digits are neither nix32 (52) nor base 16 (64)", len(digits))
		}
	} else if digits, ok := strings.CutPrefix(s, sriPrefix); ok {
		b, err := base64.StdEncoding.Strict().DecodeString(digits)
		// The standard decoder skips line breaks, so the length tells too.
		if err != nil || len(b) != len(h) || len(digits) != base64.StdEncoding.EncodedLen(len(h)) {
			return Hash{}, errors.New("what follows sha256- is not base64 of 32 bytes")
		}
		copy(h[:], b)
	} else {
		i := strings.IndexAny(s, ":-")
		if i <= 0 {
			return Hash{}, errors.New(`it names no algorithm; "sha256:…" is needed`)
		}
		return Hash{}, fmt.Errorf("its algorithm is %s; only sha256 is taken here", quote(s[:i]))
	}
	if h.IsZero() {
		return Hash{}, errZeroHash
	}
	return h, nil
}

// setBase32 decodes nix32, which is little-endian: the last character holds
// the lowest five bits of the first byte. From the end, eight characters are
// five bytes; 48 characters make 30 bytes and the four that are left, 20 bits,
// make two bytes and four bits that must be zero.
func (h *Hash) setBase32(s string) error {
	if len(s) != base32Len {
		return fmt.Errorf("%d characters are not the 52 of a SHA-256 in nix32", len(s))
	}
	var all byte // bits 5 and up are set if a character was not a digit
	for g := range 6 {
		c := s[base32Len-8*(g+1) : base32Len-8*g]
		var v uint64
		for i := range 8 {
			d := nix32Digit[c[i]]
			all |= d
			v = v<<5 | uint64(d&31)
		}
		b := h[5*g : 5*g+5]
		b[0], b[1], b[2], b[3], b[4] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24), byte(v>>32)
	}
	var v uint32
	for i := range 4 {
		d := nix32Digit[s[i]]
		all |= d
		v = v<<5 | uint32(d&31)
	}
	h[30], h[31] = byte(v), byte(v>>8)
	switch {
	case all >= 32:
		*h = Hash{}
		return errors.New("it has a character outside Nix's base-32 alphabet (digits and lower-case letters without e, o, t, u)")
	case v>>16 != 0:
		*h = Hash{}
		return errors.New("it is larger than a SHA-256 can be")
	case h.IsZero():
		return errZeroHash
	}
	return nil
}

func (h *Hash) append(dst []byte) []byte {
	return h.appendBase32(append(dst, hashPrefix...))
}

func (h *Hash) appendBase32(dst []byte) []byte {
	v := uint64(h[31])<<8 | uint64(h[30])
	dst = append(dst,
		nix32Letters[v>>15&31], nix32Letters[v>>10&31], nix32Letters[v>>5&31], nix32Letters[v&31])
	for g := 5; g >= 0; g-- {
		b := h[5*g : 5*g+5]
		v = uint64(b[4])<<32 | uint64(b[3])<<24 | uint64(b[2])<<16 | uint64(b[1])<<8 | uint64(b[0])
		dst = append(dst,
			nix32Letters[v>>35&31], nix32Letters[v>>30&31], nix32Letters[v>>25&31], nix32Letters[v>>20&31],
			nix32Letters[v>>15&31], nix32Letters[v>>10&31], nix32Letters[v>>5&31], nix32Letters[v&31])
	}
	return dst
}
