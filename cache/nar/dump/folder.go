package dump

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"narwharf/cache/nar"
)

// folder is an open directory of a tree. Its entries are opened by name from here, so that nobody
// can slip a link into the path. The walk holds it while it is in it, and so does every batch that
// has steps in it; the last to let go closes it.
type folder struct {
	up   *folder // nil above the root
	name string  // in up; the root's is its path in the file system
	fd   int
	held atomic.Int32
	seen bool // a look has shown what is to be opened in it
	*faults
}

// outside is where the root is opened from, which was seen if the tree was measured.
func outside(seen bool, f *faults) *folder { return &folder{fd: unix.AT_FDCWD, seen: seen, faults: f} }

// open opens the directory called name in f.
func (f *folder) open(name string) (*folder, error) {
	err := f.opening(name)
	var fd int
	if err == nil {
		fd, err = openat(f.fd, name, unix.O_DIRECTORY)
	}
	if err != nil {
		return nil, f.fail("open", name, err)
	}
	sub := &folder{up: f, name: name, fd: fd, seen: true, faults: f.faults}
	sub.hold()
	return sub, nil
}

func (f *folder) hold() { f.held.Add(1) }

func (f *folder) release() {
	if f.held.Add(-1) == 0 && f.up != nil {
		_ = unix.Close(f.fd) // nothing was written to it
	}
}

// path is where name in f lies in the file system.
func (f *folder) path(name string) string {
	parts := []string{name}
	for ; f.up != nil; f = f.up {
		parts = append([]string{f.name}, parts...)
	}
	return strings.Join(parts, "/")
}

// fail is the error of what was attempted on name in f. What a look has just shown to be there and
// is not, or is of another type, has changed.
func (f *folder) fail(op, name string, err error) error {
	if f.seen && !errors.Is(err, ErrChanged) {
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP),
			errors.Is(err, unix.ENXIO), errors.Is(err, unix.ESTALE), op == "readlink" && errors.Is(err, unix.EINVAL):
			err = fmt.Errorf("%w: %w", ErrChanged, err)
		}
	}
	return &fs.PathError{Op: op, Path: f.path(name), Err: err}
}

func changed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrChanged, fmt.Sprintf(format, args...))
}

// faults lets tests take part: each function is called with the path of what is about to be
// opened, or read, and its error is taken for that of the system call.
type faults struct {
	atOpen, atRead func(path string) error
}

func (f *folder) opening(name string) error {
	if f.faults == nil || f.atOpen == nil {
		return nil
	}
	return f.atOpen(f.path(name))
}

func (f *folder) reading(name string) error {
	if f.faults == nil || f.atRead == nil {
		return nil
	}
	return f.atRead(f.path(name))
}

// look is lstat(2) of name in f.
func (f *folder) look(name string, st *unix.Stat_t) error {
	for {
		err := unix.Fstatat(f.fd, name, st, unix.AT_SYMLINK_NOFOLLOW)
		if err != unix.EINTR {
			return err
		}
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

func (f *folder) readlink(name string) (string, error) {
	if err := f.opening(name); err != nil {
		return "", f.fail("readlink", name, err)
	}
	for size := 128; ; size *= 4 {
		b := make([]byte, size)
		n, err := unix.Readlinkat(f.fd, name, b)
		if err != nil {
			return "", f.fail("readlink", name, err)
		}
		if n == size {
			continue
		}
		if err := nar.CheckTarget(b[:n]); err != nil {
			return "", f.fail("dump", name, err)
		}
		return string(b[:n]), nil
	}
}

// typeOf turns the type bits of a mode into ours, 0 for what a NAR cannot hold.
func typeOf(mode uint32) nar.Type {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nar.Regular
	case unix.S_IFDIR:
		return nar.Directory
	case unix.S_IFLNK:
		return nar.Symlink
	}
	return 0
}

// refuse is the error for what is there and cannot be in a NAR.
func (f *folder) refuse(name string) error {
	var st unix.Stat_t
	what := "a file of unknown kind"
	if err := f.look(name, &st); err != nil {
		return f.fail("stat", name, err)
	}
	switch uint32(st.Mode) & unix.S_IFMT {
	case unix.S_IFSOCK:
		what = "a socket"
	case unix.S_IFIFO:
		what = "a pipe"
	case unix.S_IFCHR, unix.S_IFBLK:
		what = "a device"
	}
	return f.fail("dump", name, fmt.Errorf("a nar holds files, directories and links, not %s", what))
}
