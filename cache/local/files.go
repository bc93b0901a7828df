package local

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"narwharf/cache/nar"
	"narwharf/narinfo"
)

// HasFiles tells whether the files of a path are there: all of them if the first
// is, the rest shows when they are read.
func (s *Store) HasFiles(p narinfo.Path) bool {
	_, err := os.Lstat(s.RealPath(p))
	return err == nil
}

// File returns what a name in a path is, "" being the path itself, and of a
// folder what is in it; file is where it is on the disk. It follows no link.
func (s *Store) File(p narinfo.Path, name string) (n *nar.Node, file string, err error) {
	file, st, err := lstat(s.RealPath(p), name)
	if err != nil {
		return nil, "", err
	}
	n, err = node(file, st)
	if err != nil || n.Type != nar.Directory {
		return n, file, err
	}
	entries, err := os.ReadDir(file)
	if err != nil {
		return nil, "", err
	}
	for _, d := range entries {
		st, err := d.Info()
		if err != nil {
			return nil, "", err
		}
		entry, err := node(filepath.Join(file, d.Name()), st)
		if err != nil {
			return nil, "", err
		}
		n.Entries = append(n.Entries, *entry)
	}
	return n, file, nil
}

// node is what a NAR would say of a file, but for what a folder has in it.
func node(file string, st fs.FileInfo) (*nar.Node, error) {
	n := &nar.Node{Name: st.Name(), Type: nar.Directory}
	var err error
	switch {
	case st.Mode().IsRegular():
		n.Type, n.Size = nar.Regular, st.Size()
	case st.Mode()&fs.ModeSymlink != 0:
		n.Type = nar.Symlink
		n.Target, err = os.Readlink(file)
	case !st.IsDir():
		err = fs.ErrNotExist // a NAR can have no socket, device or pipe
	}
	return n, err
}

// ReadFiles reads files of a path by their names, and what links point at. One that is neither, or
// larger than limit, is there with no content; one that is missing is not.
func (s *Store) ReadFiles(p narinfo.Path, names []string, limit int64) (map[string][]byte, error) {
	found := make(map[string][]byte)
	for _, name := range names {
		file, st, err := lstat(s.RealPath(p), name)
		var text []byte
		switch {
		case err != nil:
		case st.Mode().IsRegular() && st.Size() <= limit:
			text, err = os.ReadFile(file)
		case st.Mode().Type() == fs.ModeSymlink:
			var to string
			to, err = os.Readlink(file)
			text = []byte(to)
		}
		switch {
		case err == nil:
			found[name] = text
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return found, nil
}

// lstat finds a name below root, on a way that has no links.
func lstat(root, name string) (file string, st fs.FileInfo, err error) {
	file = root
	if name != "" {
		for part := range strings.SplitSeq(name, "/") {
			if st, err = os.Lstat(file); err != nil || !st.IsDir() {
				return "", nil, errors.Join(err, fs.ErrNotExist)
			}
			file += "/" + part
		}
	}
	st, err = os.Lstat(file)
	return file, st, err
}

// Log opens the log that Nix kept of a build: drvs/<2 characters>/<the rest>,
// packed with bzip2 unless compress-build-log is false (getBuildLogExact in
// src/libstore/local-fs-store.cc).
func (s *Store) Log(drv string) (f *os.File, bzip2 bool, err error) {
	name := filepath.Join(s.logs, "drvs", drv[:2], drv[2:])
	f, err = os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(name + ".bz2")
		return f, true, err
	}
	return f, false, err
}
