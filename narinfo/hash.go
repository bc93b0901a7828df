package narinfo

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixbase32"
)

// Hash is a SHA-256. The zero value means there is none; every parser here
// refuses thirty-two zero bytes so that the two cannot be confused.
type Hash [32]byte

const (
	base32Len  = 52 // characters of 32 bytes in nix32
	hashPrefix = "sha256:"
	sriPrefix  = "sha256-"
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

// setBase32 decodes nix32. Its 52 characters are 260 bits, of which four must be zero.
func (h *Hash) setBase32(s string) error {
	switch {
	case len(s) != base32Len:
		return fmt.Errorf("%d characters are not the 52 of a SHA-256 in nix32", len(s))
	case !only(s, inNix32):
		return errors.New("it has a character outside Nix's base-32 alphabet (digits and lower-case letters without e, o, t, u)")
	}
	b, err := nixbase32.DecodeString(s)
	if err != nil {
		return errors.New("it is larger than a SHA-256 can be")
	}
	if *h = Hash(b); h.IsZero() {
		return errZeroHash
	}
	return nil
}

func (h *Hash) append(dst []byte) []byte {
	return h.appendBase32(append(dst, hashPrefix...))
}

func (h *Hash) appendBase32(dst []byte) []byte {
	n := len(dst)
	dst = append(dst, make([]byte, base32Len)...)
	nixbase32.Encode(dst[n:], h[:])
	return dst
}
