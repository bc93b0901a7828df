package backup

import (
	"context"
	"crypto/rand"
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

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"narwharf/cache/state/durable"
	"narwharf/cache/state/progress"
)

// mirror makes files of one folder those of another. Names are relative to both.
type mirror struct {
	from, to string
	unlock   func() error

	mu   sync.Mutex
	seen map[string]bool // files that are to be there

	making  sync.Mutex
	folders map[string]bool // that are there, to be synced

	linked, copied, bytes, removed atomic.Int64
}

// atOnce is how many files are copied at a time: each waits for its sync.
const atOnce = 8

// newMirror keeps other processes from writing to a folder until it is closed.
func newMirror(from, to string) (*mirror, error) {
	f, err := os.Open(to)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another narwharf is writing to %s", to), f.Close())
	}
	return &mirror{from: from, to: to, unlock: f.Close, seen: make(map[string]bool), folders: map[string]bool{".": true}}, nil
}

func (m *mirror) close() error { return m.unlock() }

func (m *mirror) result() Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Result{Files: int64(len(m.seen)), Linked: m.linked.Load(), Copied: m.copied.Load(), Bytes: m.bytes.Load(), Removed: m.removed.Load()}
}

// walk copies the files below a folder, but for what skip says. What goes meanwhile is
// left out.
func (m *mirror) walk(ctx context.Context, dir string, skip func(rel string, d fs.DirEntry) bool) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	err := filepath.WalkDir(filepath.Join(m.from, dir), func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(m.from, name)
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case rel != "." && (isTemp(rel) || skip(rel, d)):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return m.folder(rel)
		case d.Type().IsRegular():
			g.Go(func() error {
				err := m.file(ctx, rel)
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				return err
			})
		}
		return nil
	})
	return errors.Join(g.Wait(), err)
}

// isTemp tells whether a file is one that is being written, or is the file system's own.
func isTemp(rel string) bool {
	return strings.HasPrefix(filepath.Base(rel), ".new-") || filepath.Base(rel) == lostFound
}

// folder makes a folder, with mode and owner of the one that it is a copy of. When it
// returns the folder is there, also where another has begun to make it.
func (m *mirror) folder(rel string) error {
	m.making.Lock()
	defer m.making.Unlock()
	return m.makeFolder(rel)
}

// makeFolder is for the holder of m.making.
func (m *mirror) makeFolder(rel string) error {
	if m.folders[rel] {
		return nil
	}
	if err := m.makeFolder(filepath.Dir(rel)); err != nil {
		return err
	}
	st, err := os.Stat(filepath.Join(m.from, rel))
	if err != nil {
		return err
	}
	name := filepath.Join(m.to, rel)
	if err := os.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := errors.Join(os.Chmod(name, st.Mode().Perm()), own(name, st)); err != nil {
		return err
	}
	m.folders[rel] = true
	return nil
}

// own gives a file to whom another belongs, if we may.
func own(name string, like fs.FileInfo) error {
	if st, ok := like.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		return os.Lchown(name, int(st.Uid), int(st.Gid))
	}
	return nil
}

// note counts a file that is to be there.
func (m *mirror) note(ctx context.Context, rel string) {
	m.mu.Lock()
	m.seen[rel] = true
	n := len(m.seen)
	m.mu.Unlock()
	progress.Report(ctx, "files", int64(n), 0)
}

// file makes a file what it is in the other folder: as a link where it is one of the
// cache, which nobody writes to, else by copying it.
func (m *mirror) file(ctx context.Context, rel string) error {
	if err := m.folder(filepath.Dir(rel)); err != nil {
		return err
	}
	from, to := filepath.Join(m.from, rel), filepath.Join(m.to, rel)
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	linkable := strings.HasPrefix(rel, cacheDir+string(filepath.Separator))
	if is, err := os.Stat(to); err == nil && linkable && same(rel, st, is) {
		m.note(ctx, rel)
		return nil
	}
	if linkable && m.link(from, to) == nil {
		m.linked.Add(1)
		m.note(ctx, rel)
		return nil
	}
	if err := m.copyAs(from, rel); err != nil {
		return err
	}
	m.note(ctx, rel)
	return nil
}

// same tells whether a file need not be copied: it is the other, or its copy. A NAR is
// named by its content.
func same(rel string, a, b fs.FileInfo) bool {
	return os.SameFile(a, b) || a.Size() == b.Size() && (a.ModTime().Equal(b.ModTime()) || strings.HasPrefix(rel, filepath.Join(cacheDir, "nar")+string(filepath.Separator)))
}

// link gives a file another name, in the place of what has it.
func (m *mirror) link(from, to string) error {
	err := os.Link(from, to)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	temp := filepath.Join(filepath.Dir(to), ".new-"+rand.Text())
	if err := os.Link(from, temp); err != nil {
		return err
	}
	if err := os.Rename(temp, to); err != nil {
		_ = os.Remove(temp)
		return err
	}
	return nil
}

// copyAs copies a file, with its mode, time and owner.
func (m *mirror) copyAs(from, rel string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	to := filepath.Join(m.to, rel)
	out, err := durable.Create(to, durable.Options{Mode: st.Mode().Perm(), Exact: true})
	if err != nil {
		return err
	}
	defer out.Abort()
	n, err := io.Copy(struct{ io.Writer }{out}, in)
	if err == nil {
		err = out.Commit()
	}
	if err == nil {
		err = errors.Join(os.Chtimes(to, st.ModTime(), st.ModTime()), own(to, st))
	}
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	m.copied.Add(1)
	m.bytes.Add(n)
	return nil
}

// sync makes the names of all files durable.
func (m *mirror) sync() error {
	for rel := range m.folders {
		if err := durable.SyncDir(filepath.Join(m.to, rel)); err != nil {
			return err
		}
	}
	return nil
}

// prune removes what is not to be there any more.
func (m *mirror) prune(ctx context.Context) error {
	return filepath.WalkDir(m.to, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(m.to, name)
		if d.Name() == lostFound {
			return fs.SkipDir
		}
		if err != nil || d.IsDir() || m.seen[rel] || rel == noteName || rel == database {
			return errors.Join(err, ctx.Err())
		}
		m.removed.Add(1)
		return os.Remove(name)
	})
}
