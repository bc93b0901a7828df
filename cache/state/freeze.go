package state

import (
	"context"
	"encoding/json"
	"fmt"
)

// Freeze says that a state takes no writes, and why.
type Freeze struct {
	// Why is for whoever wanted to write: what happens, and what to do.
	Why string `json:"why"`
	// For is the place whose Stores may write all the same, "" if none. A Store has a place when it is opened.
	For string `json:"for,omitempty"`
}

// Frozen is the error of a write to a state that takes none: it is being moved elsewhere, or was. It Is
// ErrUnavailable, since who waits may be served.
type Frozen struct{ Why string }

func (f *Frozen) Error() string { return f.Why }

// Is makes it ErrUnavailable.
func (f *Frozen) Is(target error) bool { return target == ErrUnavailable }

// Movable is a Store that can be copied, row by row, to another kind of store.
type Movable interface {
	Store

	// Freeze has all Updates, Merges and Replaces fail with a *Frozen, but for those of Stores that it is for. When
	// it returns none of the others is under way, at whichever server. nil ends it.
	Freeze(ctx context.Context, f *Freeze) error

	// Frozen is what Freeze said last, nil if this Store may write.
	Frozen(ctx context.Context) (*Frozen, error)

	// Names are the buckets and the logs with something in them, sorted.
	Names(ctx context.Context) (buckets, logs []string, err error)

	// Records are those of a log from a position on, also such as ReadLog does not show yet.
	Records(ctx context.Context, log string, from uint64, limit int) ([]Record, error)

	// Restore writes records of a log at their positions, and removes those from From on and below To that are
	// not among them, 0 for no bound. New positions of any log are above theirs from then on.
	Restore(ctx context.Context, log string, from, to uint64, records []Record) error
}

// Text is f as it is stored: nil is empty.
func (f *Freeze) Text() []byte {
	if f == nil {
		return nil
	}
	text, _ := json.Marshal(f) // strings always can
	return text
}

// FrozenFor is what a stored Freeze says to a Store with a place, nil if it may write.
func FrozenFor(text []byte, place string) *Frozen {
	if len(text) == 0 {
		return nil
	}
	var f Freeze
	if err := json.Unmarshal(text, &f); err != nil {
		return &Frozen{fmt.Sprintf("it takes no writes, and what says why is damaged: %v", err)}
	}
	if f.For != "" && f.For == place {
		return nil
	}
	return &Frozen{f.Why}
}
