package signing

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

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

// tree is a Merkle tree of RFC 6962, section 2.1: the hashes of the leaves,
// then level by level those of pairs, up to the root. The last of an odd
// number has no pair and is taken up as it is, which is what the RFC's split at
// the largest power of two comes to.
type tree [][]tlog.Hash

// newTree hashes the leaves, of which there is at least one.
func newTree(leaves [][]byte) tree {
	level := make([]tlog.Hash, len(leaves))
	for i, leaf := range leaves {
		level[i] = tlog.RecordHash(leaf)
	}
	t := tree{level}
	for len(level) > 1 {
		up := make([]tlog.Hash, 0, (len(level)+1)/2)
		for pair := range slices.Chunk(level, 2) {
			if len(pair) == 1 {
				up = append(up, pair[0])
			} else {
				up = append(up, tlog.NodeHash(pair[0], pair[1]))
			}
		}
		t = append(t, up)
		level = up
	}
	return t
}

func (t tree) root() Digest { return Digest(t[len(t)-1][0]) }

// proof is the audit path of leaf i, from the leaf's sibling upwards.
func (t tree) proof(i int) tlog.RecordProof {
	path := make(tlog.RecordProof, 0, len(t)-1)
	for _, level := range t[:len(t)-1] {
		if sibling := i ^ 1; sibling < len(level) {
			path = append(path, level[sibling])
		}
		i >>= 1
	}
	return path
}

// isOf tells whether t was built from that many leaves and from this one.
func (t tree) isOf(leaves [][]byte, i int) bool {
	return len(t) > 0 && len(t[0]) == len(leaves) && t[0][i] == tlog.RecordHash(leaves[i])
}
