package audit

import (
	"slices"

	"narwharf/cache/state"
)

// Bell rings when the log may have grown, for who reads it as it grows.
type Bell chan struct{}

// NewBell makes one that rings once at first: what was written before has to be read, too.
func NewBell() Bell {
	b := make(Bell, 1)
	b.Ring()
	return b
}

// Ring rings it. It never waits.
func (b Bell) Ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}

// Noticed passes on which topics the state notified of.
func (b Bell) Noticed(topics []string) {
	if slices.Contains(topics, Events) || slices.Contains(topics, state.All) {
		b.Ring()
	}
}
