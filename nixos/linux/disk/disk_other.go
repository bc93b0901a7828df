//go:build !linux

package disk

import "errors"

func Sync(string) error { return errors.ErrUnsupported }

func InMemory(string) bool { return false }

func Free(string) (int64, error) { return 0, errors.ErrUnsupported }

func Mounted(string) (bool, error) { return false, errors.ErrUnsupported }
