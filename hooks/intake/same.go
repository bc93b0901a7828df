package intake

import (
	"bytes"
	"encoding/json"

	"narwharf/hooks/api"
)

// Same tells whether two reports say the same.
func Same(a, b *api.Status) bool {
	one, err := json.Marshal(a)
	if err != nil {
		return false
	}
	two, err := json.Marshal(b)
	return err == nil && bytes.Equal(one, two)
}
