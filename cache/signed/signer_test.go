package signed

import (
	"fmt"
	"testing"

	"narwharf/signing"
)

func TestKeyNames(t *testing.T) {
	var keys []signing.PublicKey
	for i := range 5 {
		key, err := signing.GenerateKey(fmt.Sprint("k", i))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key.Public())
	}
	for n, want := range map[int]string{1: "k0", 2: "k0 or k1", 3: "k0 or k1 or k2", 5: "k0 or k1 or k2 or another of the configured keys"} {
		if got := keyNames(keys[:n]); got != want {
			t.Errorf("%d keys are %q", n, got)
		}
	}
}
