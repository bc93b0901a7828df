//go:build !linux

package ahead

import "errors"

// lowerPriority fails: elsewhere it would be that of the whole process.
func lowerPriority() error { return errors.ErrUnsupported }
