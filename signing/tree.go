package signing

import (
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

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
