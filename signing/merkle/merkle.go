// Package merkle is the tree over the entries of a release: that of RFC 6962, section
// 2.1, with all its hashes at hand, so that a proof for each host costs next to nothing.
package merkle

import (
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// Tree is the hashes of the leaves, then level by level those of pairs, up to the root.
// The last of an odd number has no pair and is taken up as it is, which is what the RFC's
// split at the largest power of two comes to.
type Tree [][]tlog.Hash

// New hashes the leaves, of which there is at least one.
func New(leaves [][]byte) Tree {
	level := make([]tlog.Hash, len(leaves))
	for i, leaf := range leaves {
		level[i] = tlog.RecordHash(leaf)
	}
	t := Tree{level}
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

// Root is the hash that commits to all leaves, given their number.
func (t Tree) Root() tlog.Hash { return t[len(t)-1][0] }

// Proof is the audit path of leaf i, from the leaf's sibling upwards.
func (t Tree) Proof(i int) tlog.RecordProof {
	path := make(tlog.RecordProof, 0, len(t)-1)
	for _, level := range t[:len(t)-1] {
		if sibling := i ^ 1; sibling < len(level) {
			path = append(path, level[sibling])
		}
		i >>= 1
	}
	return path
}

// IsOf tells whether t was built from that many leaves and from this one.
func (t Tree) IsOf(leaves [][]byte, i int) bool {
	return len(t) > 0 && len(t[0]) == len(leaves) && t[0][i] == tlog.RecordHash(leaves[i])
}
