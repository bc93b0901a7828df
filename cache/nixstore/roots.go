package nixstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"narwharf/cache/nixstore/daemon"
	"narwharf/narinfo"
)

// ErrNoRoot is for a path that this process can keep from the garbage collector in
// no way.
var ErrNoRoot = errors.New("this user can make no GC root: let it write to gcroots/narwharf in Nix's state folder, or start nix-daemon")

// roots are GC roots of ours: symbolic links to store paths, whose age counts. They
// lie in the folder narwharf of Nix's own gcroots if this user may write there, else
// in one of ours, and nix-daemon is told of each (as `nix-store --add-root` does).
type roots struct {
	own    string // the folder of ours
	find   sync.Once
	dir    string // "" if there is none
	direct bool   // dir is within gcroots
	mu     sync.Mutex

	made, synced atomic.Int64
	syncing      sync.Mutex

	telling   sync.Mutex
	collector net.Conn // that is at work, or was
}

// renew is the age from which on a root that is used again gets a new one.
const renew = 24 * time.Hour

// rootsDir returns where roots are, "" if nowhere.
func (s *Store) rootsDir() string {
	r := &s.roots
	r.find.Do(func() {
		dir := filepath.Join(s.state, "gcroots", "narwharf")
		if err := os.Mkdir(dir, 0o755); (err == nil || errors.Is(err, fs.ErrExist)) && unix.Access(dir, unix.W_OK) == nil {
			r.dir, r.direct = dir, true
		} else if r.own != "" && os.MkdirAll(r.own, 0o755) == nil {
			r.dir = r.own
		}
	})
	return r.dir
}

// Hold keeps a path, and all that it refers to, from Nix's garbage collector: a root
// of ours is made, or gets a new age. When it returns nil the path is valid and stays
// so until Release finds the root too old, also over a power cut. It wraps ErrNotValid
// if Nix has no such path, and ErrNoRoot if no root can be made.
func (s *Store) Hold(ctx context.Context, p narinfo.Path) error {
	r := &s.roots
	dir := s.rootsDir()
	if dir == "" {
		return ErrNoRoot
	}
	link := filepath.Join(dir, string(p))
	if r.use(link) {
		return nil
	}
	make := func() error { return r.link(p.In(s.storeDir), link) }
	var err error
	if r.direct {
		if err = make(); err == nil {
			err = s.collected(ctx, p)
		}
	} else if err = s.daemon.Root(ctx, p, link, make); errors.Is(err, daemon.ErrNoAnswer) {
		err = fmt.Errorf("%w: %w", ErrNoRoot, err)
	}
	if err == nil {
		_, err = s.PathInfo(ctx, p) // a collection may have been at work before
	}
	if err == nil {
		err = r.confirm(link)
	}
	if errors.Is(err, ErrNotValid) {
		_ = os.Remove(link) // else it goes by its age
	}
	return err
}

// use tells whether there is a root, and makes it younger if it is old.
func (r *roots) use(link string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	st, err := os.Lstat(link)
	if err != nil || st.Mode()&fs.ModeSymlink == 0 || st.ModTime().Equal(unconfirmed) {
		return false
	}
	return time.Since(st.ModTime()) < renew || touch(link, time.Now()) == nil
}

// unconfirmed is the age of a link of which it is not known that it keeps anything.
var unconfirmed = time.Unix(1, 0)

func (r *roots) link(target, link string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := os.Symlink(target, link)
	if errors.Is(err, fs.ErrExist) { // another is about it, or was when it was killed
		return nil
	}
	if err == nil {
		err = touch(link, unconfirmed)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoRoot, err)
	}
	return nil
}

// confirm makes a root count, and durable. Those that wait for a sync share the next.
func (r *roots) confirm(link string) error {
	if err := touch(link, time.Now()); err != nil {
		return err
	}
	mine := r.made.Add(1)
	r.syncing.Lock()
	defer r.syncing.Unlock()
	if r.synced.Load() >= mine {
		return nil
	}
	all := r.made.Load()
	d, err := os.Open(r.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return err
	}
	r.synced.Store(all)
	return nil
}

func touch(link string, t time.Time) error {
	at := unix.NsecToTimespec(t.UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, link, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
}

// collected waits until every collection knows the root of p. One that begins later
// finds it. One that is at work has read the roots before; it is told over its socket,
// as Nix's own LocalStore::addTempRoot does (src/libstore/gc.cc, since Nix 2.5).
func (s *Store) collected(ctx context.Context, p narinfo.Path) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	for {
		f, err := os.OpenFile(filepath.Join(s.state, "gc.lock"), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			// The lock is the store owner's alone, but nix-daemon knows.
			if err := s.daemon.Root(ctx, p, filepath.Join(s.roots.dir, string(p)), func() error { return nil }); err != nil {
				return fmt.Errorf("%w: %w", ErrNoRoot, err)
			}
			return nil
		}
		free := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		_ = f.Close()
		if free == nil {
			return nil
		}
		if told, err := s.tell(ctx, p); told {
			return nil
		} else if ctx.Err() != nil {
			return cmp.Or(err, ctx.Err())
		}
		time.Sleep(50 * time.Millisecond) // it is just beginning, or has ended
	}
}

// tell gives a collection that is at work another root. One connection serves all, and
// stays open as those of Nix do: Nix 2.8 crashes over one that comes and goes at once.
func (s *Store) tell(ctx context.Context, p narinfo.Path) (told bool, err error) {
	r := &s.roots
	r.telling.Lock()
	defer r.telling.Unlock()
	if r.collector == nil {
		if r.collector, err = new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.state, "gc-socket", "socket")); err != nil {
			r.collector = nil
			return false, err
		}
	}
	var answer [1]byte
	if t, ok := ctx.Deadline(); ok {
		err = r.collector.SetDeadline(t)
	}
	if err == nil {
		_, err = fmt.Fprintln(r.collector, p.In(s.storeDir))
	}
	if err == nil {
		_, err = r.collector.Read(answer[:])
	}
	if err != nil { // it has ended
		_ = r.collector.Close()
		r.collector = nil
	}
	return answer[0] == '1', err
}

// Release takes away the roots that were not used for an age, and returns how many
// are left.
func (s *Store) Release(age time.Duration) (left int, err error) {
	r := &s.roots
	dir := s.rootsDir()
	if dir == "" {
		return 0, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	var failed error
	for _, e := range entries {
		if _, err := narinfo.ParseBase(e.Name()); err != nil || e.Type()&fs.ModeSymlink == 0 || strings.HasPrefix(e.Name(), ".") {
			continue // not ours
		}
		r.mu.Lock()
		if st, err := e.Info(); err == nil && time.Since(st.ModTime()) > age {
			failed = errors.Join(failed, os.Remove(filepath.Join(dir, e.Name())))
		} else {
			left++
		}
		r.mu.Unlock()
	}
	return left, failed
}
