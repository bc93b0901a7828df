package access

import "testing"

func TestMemory(t *testing.T) {
	testStore(t, func(*testing.T) Store { return new(Memory) })
}
