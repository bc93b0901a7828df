package cache

import (
	"errors"
	"fmt"
	"syscall"

	"narwharf/cache/blob"
)

// asFull recognises a full disk in an error of the database.
func asFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", blob.ErrFull, err)
	}
	return err
}
