//go:build !linux

package nar

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// readEntries reads the directory f into list, unsorted.
func (f *folder) readEntries(list []dirent, _ []byte) ([]dirent, error) {
	fd, err := unix.Dup(f.fd)
	if err != nil {
		return nil, f.up.fail("readdir", f.name, err)
	}
	d := os.NewFile(uintptr(fd), f.name)
	defer func() { _ = d.Close() }() // nothing was written to it
	entries, err := d.ReadDir(-1)
	if err != nil {
		return nil, f.up.fail("readdir", f.name, err)
	}
	types := map[fs.FileMode]Type{0: Regular, fs.ModeDir: Directory, fs.ModeSymlink: Symlink}
	for _, e := range entries {
		list = append(list, dirent{e.Name(), types[e.Type()]})
	}
	return list, nil
}

func readAhead(fd int, from, n int64) {}
