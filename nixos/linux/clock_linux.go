package linux

import "golang.org/x/sys/unix"

// bootClock is milliseconds since the boot, suspended time included.
func bootClock() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // Linux has had it since 2.6.39
	}
	return t.Nano() / 1e6
}
