package nar

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sort"

	"golang.org/x/sys/unix"
)

// Dump writes the file, directory or link at root to w as a NAR and returns its size. As in Nix,
// of the mode only the owner's execute bit counts, no link is followed, not even root itself, and
// names go by their bytes. Sockets, devices and pipes are errors, and so is a file whose size
// changes while it is read. After an error what w has got is not a NAR.
func Dump(w io.Writer, root string) (int64, error) {
	d := dumper{out: NewWriter(w), root: root}
	err := d.dumpRoot()
	if err == nil {
		err = d.out.Close()
	}
	return d.out.Offset(), err
}

type dumper struct {
	out  *Writer
	root string
	body fileBody
}

func (d *dumper) dumpRoot() error {
	info, err := os.Lstat(d.root)
	if err != nil {
		return fmt.Errorf("dump: %w", err)
	}
	return d.dump(unix.AT_FDCWD, d.root, "", info.Mode().Type())
}

// dump writes what stands as name in the open directory at, and is path in the NAR. The depth of
// the recursion is bounded by the Writer, which accepts at most MaxDepth directories.
func (d *dumper) dump(at int, name, path string, typ fs.FileMode) error {
	switch typ {
	case 0:
		return d.file(at, name, path)
	case fs.ModeDir:
		return d.dir(at, name, path)
	case fs.ModeSymlink:
		to, err := readlinkat(at, name)
		if err != nil {
			return d.wrap("read link", path, err)
		}
		return d.out.WriteEntry(&Entry{Path: path, Type: Symlink, Target: to})
	}
	return d.wrap("dump", path, fmt.Errorf("a nar holds files, directories and links, not %s", typeName(typ)))
}

func (d *dumper) dir(at int, name, path string) error {
	if err := d.out.WriteEntry(&Entry{Path: path, Type: Directory}); err != nil {
		return err
	}
	fd, err := openat(at, name, unix.O_DIRECTORY)
	if err != nil {
		return d.wrap("open", path, err)
	}
	dir := os.NewFile(uintptr(fd), d.full(path))
	defer func() { _ = dir.Close() }() // nothing was written to it
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return fmt.Errorf("dump: %w", err)
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name() < entries[j].Name() })
	if path != "" {
		path += "/"
	}
	for _, e := range entries {
		if err := d.dump(fd, e.Name(), path+e.Name(), e.Type()); err != nil {
			return err
		}
	}
	return nil
}

func (d *dumper) file(at int, name, path string) error {
	// a pipe put there meanwhile must not hang the open
	fd, err := openat(at, name, unix.O_NONBLOCK)
	if err != nil {
		return d.wrap("open", path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return d.wrap("stat", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return d.wrap("dump", path, errors.New("it was a regular file and is one no more"))
	}
	err = d.out.WriteEntry(&Entry{Path: path, Type: Regular, Size: st.Size, Executable: st.Mode&unix.S_IXUSR != 0})
	if err != nil {
		return err
	}
	d.body = fileBody{fd: fd, left: st.Size}
	if _, err := d.out.ReadFrom(&d.body); err != nil {
		if d.body.left < 0 {
			err = fmt.Errorf("it grew beyond its %d bytes while it was read", st.Size)
		}
		return d.wrap("dump", path, err)
	}
	if d.body.left > 0 {
		return d.wrap("dump", path, fmt.Errorf("it lost %d of its %d bytes while it was read", d.body.left, st.Size))
	}
	return nil
}

// full is the path in the file system of a path in the NAR.
func (d *dumper) full(path string) string {
	if path == "" {
		return d.root
	}
	return d.root + "/" + path
}

func (d *dumper) wrap(doing, path string, err error) error {
	return fmt.Errorf("%s %s: %w", doing, d.full(path), err)
}

// fileBody reads an open regular file of a known size. A file of a few bytes costs one read: if
// that gave all that was asked for minus the one byte too many, the file has ended.
type fileBody struct {
	fd   int
	left int64 // negative if the file has become longer
}

func (f *fileBody) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(f.fd, p)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, os.NewSyscallError("read", err)
		}
		f.left -= int64(n)
		if n == 0 || n < len(p) && f.left == 0 {
			return n, io.EOF
		}
		return n, nil
	}
}

func openat(at int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func readlinkat(at int, name string) (string, error) {
	for size := 128; ; size *= 4 {
		b := make([]byte, size)
		n, err := unix.Readlinkat(at, name, b)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(b[:n]), nil
		}
	}
}

func typeName(typ fs.FileMode) string {
	switch {
	case typ&fs.ModeSocket != 0:
		return "a socket"
	case typ&fs.ModeNamedPipe != 0:
		return "a pipe"
	case typ&fs.ModeDevice != 0:
		return "a device"
	}
	return "a file of unknown kind"
}
