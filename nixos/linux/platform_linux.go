package linux

import (
	"os"

	"golang.org/x/sys/unix"
)

// bootClock is milliseconds since the boot, suspended time included.
func bootClock() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // Linux has had it since 2.6.39
	}
	return t.Nano() / 1e6
}

func syncFS(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// ownFileSystem tells whether dir is another file system than its parent.
func ownFileSystem(dir string) (bool, error) {
	var a, b unix.Stat_t
	if err := unix.Stat(dir, &a); err != nil {
		return false, err
	}
	err := unix.Stat(dir+"/..", &b)
	return a.Dev != b.Dev, err
}

// inMemory tells whether dir is on a file system that ends with the boot. An overlay in front of one
// is not seen, nor a disk that is put back at each boot.
func inMemory(dir string) bool {
	var s unix.Statfs_t
	return unix.Statfs(dir, &s) == nil && (s.Type == unix.TMPFS_MAGIC || s.Type == unix.RAMFS_MAGIC)
}

func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil
}
