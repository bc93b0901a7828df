package merkle

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// mth is the definition of RFC 6962, section 2.1, word for word.
func mth(d [][]byte) tlog.Hash {
	if len(d) == 1 {
		return sha256.Sum256(append([]byte{0}, d[0]...))
	}
	k := 1
	for k*2 < len(d) {
		k *= 2
	}
	left, right := mth(d[:k]), mth(d[k:])
	return sha256.Sum256(slices.Concat([]byte{1}, left[:], right[:]))
}

// The tree is that of the RFC, and that of tlog.
func TestTree(t *testing.T) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) (out []tlog.Hash, err error) {
		for _, i := range indexes {
			out = append(out, stored[i])
		}
		return out, nil
	})
	var leaves [][]byte
	for n := int64(1); n <= 130; n++ {
		leaf := fmt.Appendf(nil, "leaf %d", n)
		hashes, err := tlog.StoredHashes(n-1, leaf, reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
		leaves = append(leaves, leaf)
		tree := New(leaves)
		want, err := tlog.TreeHash(n, reader)
		if err != nil {
			t.Fatal(err)
		}
		if tree.Root() != want || tree.Root() != mth(leaves) {
			t.Fatalf("%d leaves have the root %s, not %s", n, tree.Root(), want)
		}
		for i := range n {
			proof := tree.Proof(int(i))
			want, err := tlog.ProveRecord(n, i, reader)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(proof, want) || proof == nil {
				t.Fatalf("the proof of %d in %d is %v, not %v", i, n, proof, want)
			}
		}
	}
}
