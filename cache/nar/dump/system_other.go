//go:build !linux

package dump

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"narwharf/cache/nar"
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
	types := map[fs.FileMode]nar.Type{0: nar.Regular, fs.ModeDir: nar.Directory, fs.ModeSymlink: nar.Symlink}
	for _, e := range entries {
		list = append(list, dirent{e.Name(), types[e.Type()]})
	}
	return list, nil
}

func readAhead(fd int, from, n int64) {}
