//go:build !linux

package kernel

import (
	"errors"
	"time"
)

var began = time.Now()

func BootClock() int64 { return time.Since(began).Milliseconds() + 1 }

func BootID() (string, error) { return "", errors.ErrUnsupported }

func Sync(string) error { return errors.ErrUnsupported }

func InMemory(string) bool { return false }

func Free(string) (int64, error) { return 0, errors.ErrUnsupported }

func Mounted(string) (bool, error) { return false, errors.ErrUnsupported }
