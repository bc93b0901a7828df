package signing

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

func TestDigest(t *testing.T) {
	d := Digest(sha256.Sum256(nil))
	const text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if d.String() != text || d.Hex() != text[7:] || d.IsZero() || !(Digest{}).IsZero() {
		t.Errorf("printed as %s", d)
	}
	if got, err := ParseDigest(text); err != nil || got != d {
		t.Errorf("read as %s, %v", got, err)
	}
	for _, bad := range []string{
		"", "sha256:", text[:70], text + "0", " " + text, text + "\n", text[7:], "sha256-" + text[7:], "SHA256:" + text[7:], "sha512:" + text[7:],
		"sha256:" + strings.ToUpper(text[7:]), text[:70] + "B", text[:70] + "g", text[:69] + "ä", strings.Repeat("x", 1<<20),
	} {
		d, err := ParseDigest(bad)
		if err == nil || !d.IsZero() || len(err.Error()) > 200 {
			t.Errorf("%.100q: %s, %v", bad, d, err)
		}
	}
	var in struct{ D Digest }
	if err := json.Unmarshal([]byte(`{"D":"`+text+`"}`), &in); err != nil || in.D != d {
		t.Errorf("from JSON: %v", err)
	}
	if got := mustJSON(t, in); string(got) != `{"D":"`+text+`"}` {
		t.Errorf("to JSON: %s", got)
	}
}

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
		merkle := newTree(leaves)
		want, err := tlog.TreeHash(n, reader)
		if err != nil {
			t.Fatal(err)
		}
		if merkle.root() != Digest(want) || merkle.root() != Digest(mth(leaves)) {
			t.Fatalf("%d leaves have the root %s, not %s", n, merkle.root(), want)
		}
		for i := range n {
			proof := merkle.proof(int(i))
			want, err := tlog.ProveRecord(n, i, reader)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(proof, want) || proof == nil {
				t.Fatalf("the proof of %d in %d is %v, not %v", i, n, proof, want)
			}
			if len(proof) > maxProof {
				t.Fatalf("a proof of %d hashes", len(proof))
			}
		}
	}
}

func TestLongestProof(t *testing.T) {
	merkle := newTree(make([][]byte, MaxTargets))
	if n := len(merkle.proof(0)); n != maxProof {
		t.Errorf("the longest proof has %d hashes, the limit is %d", n, maxProof)
	}
}
