package blob

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"narwharf/cache/state/durable"
)

// FS is a Store in a folder. Files are written durably, by way of a second folder
// on the same file system.
type FS struct {
	root, tmp string
	reserve   int64        // bytes that uploads leave free
	promised  atomic.Int64 // taken by writers at work for what they will write next

	room sync.Mutex // one writer at a time looks for room and takes it
	dirs sync.Map   // folders directly in root that are known to exist

	// Volatile stores files without syncing them: copies, which may be lost.
	Volatile bool

	unsynced sync.Map // folders in which a removal may not be durable

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
		if err := s.syncDir(filepath.Dir(d)); err != nil {
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
// has free, less the reserve, less what writers at work have taken.
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

// CheckName says what is wrong with the name of a file or of a folder, in every store.
func CheckName(name string) error {
	if !fs.ValidPath(name) || strings.ContainsRune(name, 0) || strings.HasPrefix(name, ".") || strings.Contains(name, "/.") {
		return fmt.Errorf("file name %q: %w", name, fs.ErrInvalid)
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > maxPart {
			return fmt.Errorf("file name %q: longer than a file system takes: %w", name, fs.ErrInvalid)
		}
	}
	return nil
}

func (s *FS) path(name string) (string, error) {
	if err := CheckName(name); err != nil {
		return "", err
	}
	return filepath.Join(s.root, filepath.FromSlash(name)), nil
}

// maxPart is NAME_MAX of every Linux file system, in bytes.
const maxPart = 255

// full makes a write error that means "no space" recognisable as ErrFull.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// Create implements Store.
func (s *FS) Create(name string, size int64) (_ Writer, err error) {
	target, err := s.path(name)
	if err != nil {
		return nil, err
	}
	w := &fsWriter{s: s, name: name, target: target}
	if err := w.begin(size); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.end()
			err = fmt.Errorf("store %s: %w", name, full(err))
		}
	}()
	dir := filepath.Dir(target)
	fault := func(step string) error {
		if step == durable.StepSyncDir {
			return s.fault(step, dir)
		}
		return s.fault(step, name)
	}
	err = s.inFolder(dir, func() error {
		if err := s.makeDir(dir); err != nil {
			return err
		}
		w.f, err = durable.Create(target, durable.Options{Mode: 0o644, Temp: s.tmp, Fault: fault, Volatile: s.Volatile})
		return err
	})
	if err != nil {
		return nil, err
	}
	return w, nil
}

// inFolder calls do, which needs a folder and the temporary one. If somebody has
// removed either, they are made again.
func (s *FS) inFolder(dir string, do func() error) error {
	err := do()
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.dirs.Clear()
	if err := os.Mkdir(s.tmp, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := s.makeDir(dir); err != nil {
		return err
	}
	return do()
}

// makeDir creates a folder below root and makes its name durable, and that of
// each folder above it. Only those directly in root, a few, are remembered:
// syncing a folder that nobody changed costs next to nothing.
func (s *FS) makeDir(dir string) error {
	if dir == s.root {
		return nil
	}
	if _, known := s.dirs.Load(dir); known {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := s.makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// Also where it was there: whoever made it may not have come to this.
	if err := s.syncDir(parent); err != nil {
		return err
	}
	if parent == s.root {
		s.dirs.Store(dir, true)
	}
	return nil
}

func (s *FS) syncDir(dir string) error {
	if err := s.fault("syncdir", dir); err != nil {
		return err
	}
	if s.Volatile {
		return nil
	}
	return durable.SyncDir(dir)
}

type fsWriter struct {
	s            *FS
	f            *durable.File
	name, target string
	announced    int64 // bytes that are to come
	promised     int64 // of them, for which there is room
	received     int64
	unasked      int64 // bytes beyond what was announced since the last look at the free space
	err          error
	done         bool
}

// unaskedStep is how many bytes that nobody announced are written between two
// looks at the free space.
const unaskedStep = 8 << 20

// roomStep is how much room is taken ahead of the first byte. Later it is as much as has
// come in: who announces much and sends little must not keep others out.
const roomStep = 8 << 20

// begin looks whether there is room for size bytes. Who does not know a size needs
// some room too.
func (w *fsWriter) begin(size int64) error {
	w.announced = max(size, 0)
	return w.promise(w.announced, 0)
}

// promise takes room for what comes next, and now for at least next bytes, if there is some
// for all of need.
func (w *fsWriter) promise(need, next int64) error {
	w.s.room.Lock()
	defer w.s.room.Unlock()
	free, err := w.s.Free()
	if err != nil {
		return err
	}
	if need > free || free < 0 {
		return fmt.Errorf("%w: %s needs %d bytes, %d are left", ErrFull, w.name, need, max(free, 0))
	}
	w.promised = min(w.announced, max(roomStep, w.received, next), free)
	w.s.promised.Add(w.promised)
	return nil
}

// Open opens what was written so far for reading; what is written later can be read, too.
func (w *fsWriter) Open() (*os.File, error) { return w.f.Open() }

func (w *fsWriter) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if next := min(int64(len(p)), w.announced); w.promised < next {
		w.s.promised.Add(-w.promised)
		w.promised = 0
		if w.err = w.promise(next, next); w.err != nil {
			return 0, w.err
		}
	}
	n, err := w.f.Write(p)
	paid := min(int64(n), w.promised)
	w.received += int64(n)
	w.announced -= paid
	w.promised -= paid
	w.s.promised.Add(-paid)
	if w.unasked += int64(n) - paid; err == nil && w.unasked >= unaskedStep {
		w.unasked = 0
		var free int64
		if free, err = w.s.Free(); err == nil && free < 0 {
			err = ErrFull
		}
	}
	if err != nil {
		w.err = fmt.Errorf("store %s: %w", w.name, full(err))
	}
	return n, w.err
}

// finish takes a step towards the end. One that fails ends the writer.
func (w *fsWriter) finish(step func() error) error {
	if w.err == nil && w.done {
		w.err = fmt.Errorf("store %s: already ended", w.name)
	}
	if w.err == nil {
		if err := step(); err != nil {
			w.err = fmt.Errorf("store %s: %w", w.name, full(err))
		}
	}
	if w.err != nil {
		w.Abort()
	}
	return w.err
}

func (w *fsWriter) Prepare() error { return w.finish(w.f.Prepare) }

func (w *fsWriter) Publish() error {
	return w.finish(func() error { return w.s.inFolder(filepath.Dir(w.target), w.f.Publish) })
}

func (w *fsWriter) Commit() error {
	if err := w.Publish(); err != nil {
		return err
	}
	if err := w.finish(w.f.Commit); err != nil {
		return err
	}
	w.end()
	return nil
}

// end gives back what was promised and not used.
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
	w.f.Abort()
	if w.err == nil {
		w.err = fmt.Errorf("store %s: aborted", w.name)
	}
}

// OpenFile is os.Open for a regular file. That one tries whether the file can be
// polled, which costs six system calls and is never so.
func OpenFile(name string) (*os.File, error) {
	for {
		fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), name), nil
		case !errors.Is(err, syscall.EINTR): // a file system of the network may say so
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
	}
}

// Open implements Store.
func (s *FS) Open(name string) (*File, error) {
	p, err := s.path(name)
	if err != nil {
		return nil, err
	}
	f, err := OpenFile(p)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file: %w", name, fs.ErrNotExist)
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
		return Info{}, fmt.Errorf("%s is not a file: %w", name, fs.ErrNotExist)
	}
	return Info{Name: name, Size: st.Size(), ModTime: st.ModTime()}, nil
}

// Remove implements Store. Each folder is synced once; one whose sync failed also for a
// name that is gone.
func (s *FS) Remove(names ...string) error {
	var errs []error
	var dirs []string
	for _, name := range names {
		p, err := s.path(name)
		if err == nil {
			err = s.fault("remove", name)
		}
		if err == nil {
			err = os.Remove(p)
		}
		dir := filepath.Dir(p)
		_, unsynced := s.unsynced.Load(dir)
		switch missing := errors.Is(err, fs.ErrNotExist); {
		case err != nil && !missing:
			errs = append(errs, fmt.Errorf("remove %s: %w", name, err))
		case (!missing || unsynced) && !slices.Contains(dirs, dir):
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range dirs {
		err := s.syncDir(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			s.unsynced.Delete(dir)
			continue
		}
		s.unsynced.Store(dir, true)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
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
			if err := listed(dir, e, fn); err != nil {
				return fmt.Errorf("list %s: %w", p, err)
			}
		}
		switch {
		case errors.Is(err, io.EOF), err == nil && len(entries) == 0:
			return nil
		case err != nil:
			return fmt.Errorf("list %s: %w", p, err)
		}
	}
}

// listed calls fn for what is a file of the store and still there.
func listed(dir string, e fs.DirEntry, fn func(Info) error) error {
	if !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") {
		return nil
	}
	st, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return fn(Info{Name: dir + e.Name(), Size: st.Size(), ModTime: st.ModTime()})
}

// Folders implements Store.
func (s *FS) Folders(dir string) (names []string, err error) {
	p := s.root
	if dir != "" {
		if p, err = s.path(dir); err != nil {
			return nil, err
		}
	}
	entries, err := os.ReadDir(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", p, err)
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
