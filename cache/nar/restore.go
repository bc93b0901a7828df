package nar

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// The modes of what Restore makes, as far as the umask lets them: Nix's own restore does the same
// before the store makes all of it read-only (0444, 0555).
const (
	modeFile       = 0o644
	modeExecutable = 0o755
	modeDirectory  = 0o755
)

// Restore makes at dst what the NAR in r holds. dst must not exist. Files get mode 0644 or 0755,
// directories 0755, less the umask; nothing is synced. Nothing outside of dst is touched and no
// link is followed, even while someone else moves things about under dst. If r turns out not to
// be exactly one well-formed NAR, or anything else fails, what was made is removed again.
func Restore(r io.Reader, dst string) error {
	rd := NewReader(r)
	root, err := rd.Next()
	if err != nil {
		return restoring(dst, err)
	}
	made := false // what someone else put at dst is not ours to remove
	switch root.Type {
	case Regular:
		err = restoreFile(rd, root, func(flag int, mode fs.FileMode) (*os.File, error) {
			f, err := os.OpenFile(dst, flag, mode)
			made = err == nil
			return f, err
		})
	case Symlink:
		err = os.Symlink(root.Target, dst)
		made = err == nil
	default:
		if err = os.Mkdir(dst, modeDirectory); err == nil {
			made = true
			err = restoreTree(rd, dst)
		}
	}
	if err == nil {
		if _, err = rd.Next(); err == io.EOF {
			return nil
		}
	}
	if made {
		err = errors.Join(err, os.RemoveAll(dst))
	}
	return restoring(dst, err)
}

// restoreTree restores all entries of a root directory. Each open directory is held by an
// os.Root, so a name is always looked up in the very directory that was made for it.
func restoreTree(rd *Reader, dst string) (err error) {
	var roots []*os.Root
	defer func() {
		for _, root := range roots {
			err = errors.Join(err, root.Close())
		}
	}()
	root, err := os.OpenRoot(dst)
	if err != nil {
		return err
	}
	roots = append(roots, root)
	for {
		e, err := rd.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		parent := rd.depth
		if e.Type == Directory {
			parent--
		}
		for len(roots) > parent {
			last := len(roots) - 1
			if err := roots[last].Close(); err != nil {
				return err
			}
			roots = roots[:last]
		}
		dir := roots[parent-1]
		name := e.Path[len(e.Path)-rd.dirs[parent-1].last:]
		switch e.Type {
		case Regular:
			err = restoreFile(rd, e, func(flag int, mode fs.FileMode) (*os.File, error) {
				return dir.OpenFile(name, flag, mode)
			})
		case Symlink:
			err = dir.Symlink(e.Target, name)
		default:
			if err = dir.Mkdir(name, modeDirectory); err == nil {
				var sub *os.Root
				if sub, err = dir.OpenRoot(name); err == nil {
					roots = append(roots, sub)
				}
			}
		}
		if err != nil {
			return err
		}
	}
}

// restoreFile writes the body of the current entry to the new file that create makes.
func restoreFile(rd *Reader, e *Entry, create func(int, fs.FileMode) (*os.File, error)) error {
	mode := fs.FileMode(modeFile)
	if e.Executable {
		mode = modeExecutable
	}
	f, err := create(os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = rd.WriteTo(f)
	return errors.Join(err, f.Close())
}

func restoring(dst string, err error) error {
	return fmt.Errorf("restore nar to %s: %w", dst, err)
}
