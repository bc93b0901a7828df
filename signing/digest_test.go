package signing

import (
	"crypto/sha256"
	"encoding/json"
	"strings"
	"testing"

	"narwharf/signing/merkle"
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

func TestLongestProof(t *testing.T) {
	tree := merkle.New(make([][]byte, MaxTargets))
	if n := len(tree.Proof(0)); n != maxProof {
		t.Errorf("the longest proof has %d hashes, the limit is %d", n, maxProof)
	}
}
