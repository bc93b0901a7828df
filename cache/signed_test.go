package cache

import (
	"encoding/base64"
	"fmt"
	"slices"
	"testing"
)

// signatures makes n well-formed signatures by keys that nobody has.
func signatures(t testing.TB, n int) (sigs []string) {
	t.Helper()
	for i := range n {
		sigs = append(sigs, fmt.Sprintf("key-%02d:%s", i, base64.StdEncoding.EncodeToString(make([]byte, 64))))
	}
	slices.Sort(sigs)
	return sigs
}
