package signing

import (
	"encoding/hex"
	"fmt"
	"strings"

	"narwharf/narinfo/clip"
)

// A Digest is a SHA-256, "sha256:" and 64 lower-case hex digits in text. All
// zeros stand for none.
type Digest [32]byte

// ParseDigest reads the text form, which is the only one.
func ParseDigest(s string) (d Digest, err error) {
	digits, ok := strings.CutPrefix(s, "sha256:")
	if ok && len(digits) == hex.EncodedLen(len(d)) && strings.ToLower(digits) == digits {
		if _, err := hex.Decode(d[:], []byte(digits)); err == nil {
			return d, nil
		}
	}
	return Digest{}, fmt.Errorf("%q is not sha256: and 64 lower-case hex digits", clipped(s))
}

// clipped is s at a length for a message.
func clipped(s string) string { return clip.Text(s, 80) }

// String is the text form.
func (d Digest) String() string { return "sha256:" + d.Hex() }

// Hex is the text form without its prefix.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

// IsZero tells whether the digest is absent.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDigest(string(text))
	return err
}
