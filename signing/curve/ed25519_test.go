package curve

import (
	"crypto/ed25519"
	"fmt"
	"testing"
)

// With a public key of small order, "R = identity, S = 0" is a signature of one
// message in at most eight: this makes one for each constant, which proves both
// the constants and the danger.
func TestSmallOrder(t *testing.T) {
	for n, y := range smallOrderY {
		for _, sign := range []byte{0, 0x80} {
			key := y
			key[31] |= sign
			if !SmallOrder(key) {
				t.Errorf("key %d", n)
			}
			forged := make([]byte, ed25519.SignatureSize)
			forged[0] = 1
			// Not every pair of y and sign is a point; those with sign 0 are.
			found := sign != 0
			for try := 0; !found && try < 500; try++ {
				found = ed25519.Verify(key[:], fmt.Append(nil, try), forged)
			}
			if !found {
				t.Errorf("key %d: no message found for the forged signature", n)
			}
		}
	}
	if public, _, err := ed25519.GenerateKey(nil); err != nil || SmallOrder([32]byte(public)) {
		t.Error("a real key is called small")
	}
}
