package blob

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// FS is a Store in a folder. Files are written to a second folder on the same
// file system, synced, renamed into place, and the folder they land in is
// synced, in this order; see "Files are hard", OSDI 2014, for why each step.
type FS struct {
	root, tmp string
	reserve   int64        // bytes that uploads leave free
	promised  atomic.Int64 // announced by writers at work, not yet written
	serial    atomic.Uint64
	dirs      sync.Map // folders known to exist

	// Fault, if set, is asked before each step on the disk and its error is
	// returned instead of taking the step. Tests set it to fail every step
	// in turn; op is one of create, write, sync, rename, syncdir, remove.
	Fault func(op, name string) error
}

// NewFS opens (and creates, if absent) a store of files in root. tmp must lie
// on the same file system; what earlier runs left there stays until Clean.
//
// The store keeps a reserve free for the database and for people: the lesser
// of 256 MiB and a twentieth of the file system.
func NewFS(root, tmp string) (*FS, error) {
	s := &FS{root: root, tmp: tmp}
	for _, d := range []string{root, tmp} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("create folder: %w", err)
		}
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(root, &st); err != nil {
		return nil, fmt.Errorf("free space of %s: %w", root, err)
	}
	s.reserve = min(256<<20, int64(st.Blocks)*int64(st.Bsize)/20)
	return s, nil
}

// Clean removes what writers of earlier runs left in the temporary folder.
// Call it only while nobody writes.
func (s *FS) Clean() error {
	entries, err := os.ReadDir(s.tmp)
	if err != nil {
		return fmt.Errorf("clean temporary files: %w", err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(s.tmp, e.Name())); err != nil {
			return fmt.Errorf("clean temporary files: %w", err)
		}
	}
	return nil
}

// Free returns how many bytes uploads may still take: what the file system
// has free, less the reserve, less what writers at work have announced.
func (s *FS) Free() (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.root, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", s.root, err)
	}
	return int64(st.Bavail)*int64(st.Bsize) - s.reserve - s.promised.Load(), nil
}

func (s *FS) fault(op, name string) error {
	if s.Fault == nil {
		return nil
	}
	return s.Fault(op, name)
}

func (s *FS) path(name string) (string, error) {
	if !fs.ValidPath(name) || strings.ContainsRune(name, 0) || strings.HasPrefix(name, ".") || strings.Contains(name, "/.") {
		return "", fmt.Errorf("file name %q: %w", name, fs.ErrInvalid)
	}
	return filepath.Join(s.root, filepath.FromSlash(name)), nil
}

// full makes a write error that means "no space" recognisable as ErrFull.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// Create implements Store.
func (s *FS) Create(name string, size int64) (Writer, error) {
	target, err := s.path(name)
	if err != nil {
		return nil, err
	}
	if size > 0 {
		free, err := s.Free()
		if err != nil {
			return nil, err
		}
		if size > free {
			return nil, fmt.Errorf("%w: %s needs %d bytes, %d are left", ErrFull, name, size, max(free, 0))
		}
	}
	if err := s.makeDir(filepath.Dir(target)); err != nil {
		return nil, fmt.Errorf("store %s: %w", name, full(err))
	}
	temp := filepath.Join(s.tmp, fmt.Sprintf("%d.%d", os.Getpid(), s.serial.Add(1)))
	if err := s.fault("create", name); err != nil {
		return nil, fmt.Errorf("store %s: %w", name, full(err))
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", name, full(err))
	}
	w := &fsWriter{s: s, f: f, name: name, temp: temp, target: target}
	if size > 0 {
		w.promised = size
		s.promised.Add(size)
	}
	return w, nil
}

// makeDir creates a folder below root and syncs its parent, once.
func (s *FS) makeDir(dir string) error {
	if _, known := s.dirs.Load(dir); known {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if dir != s.root {
		if err := s.syncDir(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	s.dirs.Store(dir, true)
	return nil
}

func (s *FS) syncDir(dir string) error {
	if err := s.fault("syncdir", dir); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

type fsWriter struct {
	s                  *FS
	f                  *os.File
	name, temp, target string
	promised           int64
	err                error
	done               bool
}

func (w *fsWriter) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n := 0
	err := w.s.fault("write", w.name)
	if err == nil {
		n, err = w.f.Write(p)
	}
	paid := min(int64(n), w.promised)
	w.promised -= paid
	w.s.promised.Add(-paid)
	if err != nil {
		w.err = fmt.Errorf("store %s: %w", w.name, full(err))
	}
	return n, w.err
}

func (w *fsWriter) Commit() error {
	if w.err == nil && w.done {
		w.err = fmt.Errorf("store %s: already ended", w.name)
	}
	if w.err != nil {
		w.Abort()
		return w.err
	}
	err := w.s.fault("sync", w.name)
	if err == nil {
		err = w.f.Sync()
	}
	if err == nil {
		err = w.f.Close()
	}
	if err == nil {
		err = w.s.fault("rename", w.name)
	}
	if err == nil {
		err = os.Rename(w.temp, w.target)
	}
	if err != nil {
		w.err = fmt.Errorf("store %s: %w", w.name, full(err))
		w.Abort()
		return w.err
	}
	w.end()
	// The file is whole and in place. If only the folder's sync failed we
	// cannot promise that it survives a power cut, and say so; the caller
	// reports a failure, and a later Create replaces it with the same.
	if err := w.s.syncDir(filepath.Dir(w.target)); err != nil {
		w.err = fmt.Errorf("store %s: %w", w.name, full(err))
		return w.err
	}
	return nil
}

func (w *fsWriter) end() {
	w.done = true
	w.s.promised.Add(-w.promised)
	w.promised = 0
}

func (w *fsWriter) Abort() {
	if w.done {
		return
	}
	w.end()
	_ = w.f.Close() // may be closed already; what counts is that the name goes
	_ = os.Remove(w.temp)
	if w.err == nil {
		w.err = fmt.Errorf("store %s: aborted", w.name)
	}
}

// Open implements Store.
func (s *FS) Open(name string) (*File, error) {
	p, err := s.path(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(p)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file: %w", name, fs.ErrInvalid)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &File{Info: Info{Name: name, Size: st.Size(), ModTime: st.ModTime()}, Content: f}, nil
}

// Stat implements Store.
func (s *FS) Stat(name string) (Info, error) {
	p, err := s.path(name)
	if err != nil {
		return Info{}, err
	}
	st, err := os.Stat(p)
	if err != nil {
		return Info{}, err
	}
	if !st.Mode().IsRegular() {
		return Info{}, fmt.Errorf("%s is not a file: %w", name, fs.ErrInvalid)
	}
	return Info{Name: name, Size: st.Size(), ModTime: st.ModTime()}, nil
}

// Touch implements Store.
func (s *FS) Touch(name string) error {
	p, err := s.path(name)
	if err != nil {
		return err
	}
	return os.Chtimes(p, time.Time{}, time.Now())
}

// Remove implements Store.
func (s *FS) Remove(name string) error {
	p, err := s.path(name)
	if err != nil {
		return err
	}
	if err := s.fault("remove", name); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	err = os.Remove(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return s.syncDir(filepath.Dir(p))
}

// List implements Store.
func (s *FS) List(dir string, fn func(Info) error) error {
	p := s.root
	if dir != "" {
		var err error
		if p, err = s.path(dir); err != nil {
			return err
		}
		dir += "/"
	}
	d, err := os.Open(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", p, err)
	}
	defer d.Close()
	for {
		entries, err := d.ReadDir(1024)
		for _, e := range entries {
			if !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			st, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("list %s: %w", p, err)
			}
			if err := fn(Info{Name: dir + e.Name(), Size: st.Size(), ModTime: st.ModTime()}); err != nil {
				return err
			}
		}
		if len(entries) == 0 || err != nil {
			if err == nil || errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("list %s: %w", p, err)
		}
	}
}
