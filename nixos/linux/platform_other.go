//go:build !linux

package linux

import (
	"errors"
	"time"
)

var began = time.Now()

func bootClock() int64 { return time.Since(began).Milliseconds() + 1 }

func syncFS(string) error { return errors.ErrUnsupported }

func inMemory(string) bool { return false }

func freeBytes(string) (int64, error) { return 0, errors.ErrUnsupported }

func ownFileSystem(string) (bool, error) { return false, errors.ErrUnsupported }
