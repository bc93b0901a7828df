package durable

import (
	"os"

	"golang.org/x/sys/unix"
)

// SyncFileSystem syncs the file system that dir is on, with all files that were
// written and never synced.
func SyncFileSystem(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}
