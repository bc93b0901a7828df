package room

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"narwharf/cache/blob"
)

func TestAsFull(t *testing.T) {
	for _, err := range []error{syscall.ENOSPC, fmt.Errorf("x: %w", syscall.EDQUOT)} {
		if got := AsFull(err); !errors.Is(got, blob.ErrFull) || !errors.Is(got, err) {
			t.Errorf("%v becomes %v", err, got)
		}
	}
	if got := AsFull(syscall.EIO); errors.Is(got, blob.ErrFull) {
		t.Errorf("EIO becomes %v", got)
	}
}
