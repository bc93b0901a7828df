package sys

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// BootClock is milliseconds since the boot, suspended time included.
func BootClock() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // Linux has had it since 2.6.39
	}
	return t.Nano() / 1e6
}

// Monotonic is how long the machine was up, without suspended time.
func Monotonic() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // every kernel has it
	}
	return time.Duration(t.Nano())
}

// BootID is the kernel's name for this boot.
func BootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
}

// Sync makes durable what is on the file system of a folder.
func Sync(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// InMemory tells whether dir is on a file system that ends with the boot. An overlay in front of one
// is not seen, nor a disk that is put back at each boot.
func InMemory(dir string) bool {
	var s unix.Statfs_t
	return unix.Statfs(dir, &s) == nil && (s.Type == unix.TMPFS_MAGIC || s.Type == unix.RAMFS_MAGIC)
}

// Free is how many bytes a program may still write to the file system of dir.
func Free(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// Sleep is an error if ctx ends before.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ErrLocked is that another process has a lock.
var ErrLocked = errors.New("it is locked")

// Lock takes a lock, which ends with the process at the latest.
func Lock(name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil:
		return func() { f.Close() }, nil
	case errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, unix.EINTR):
		err = ErrLocked
	}
	f.Close()
	return nil, fmt.Errorf("lock %s: %w", name, err)
}

// AwaitLock is Lock that waits, for long perhaps, until ctx is over.
func AwaitLock(ctx context.Context, name string) (unlock func(), err error) {
	for {
		if unlock, err = Lock(name); !errors.Is(err, ErrLocked) || Sleep(ctx, 50*time.Millisecond) != nil {
			return unlock, err
		}
	}
}
