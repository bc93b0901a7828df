package memory

import (
	"testing"

	"narwharf/cache/state"
	"narwharf/cache/state/statetest"
)

func TestState(t *testing.T) {
	statetest.Run(t, func(t *testing.T) (state.Store, func() state.Store) {
		s := New(nil)
		t.Cleanup(func() { _ = s.Close() })
		return s, nil
	})
}
