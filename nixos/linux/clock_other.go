//go:build !linux

package linux

import "time"

var began = time.Now()

func bootClock() int64 { return time.Since(began).Milliseconds() + 1 }
