//go:build linux

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// How chill does its work, for the report.
func chilling() string {
	if os.Geteuid() == 0 {
		return "cold: after drop_caches, which takes file contents, names and inodes out of memory; programs that run keep theirs"
	}
	return "cold: after posix_fadvise(DONTNEED) on the large files; for names, inodes and small files run as root (drop_caches)"
}

// chill takes files out of the page cache; as root everything.
func chill(files ...string) error {
	if os.Geteuid() == 0 {
		unix.Sync()
		return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		_ = f.Close() // nothing was written to it
		if err != nil {
			return err
		}
	}
	return nil
}
