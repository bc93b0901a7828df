// Package nixstore reads a Nix store of this machine: which paths are valid,
// their hashes, references, derivers and signatures. It never adds a path, and
// writes nothing but GC roots (Hold).
//
// # Two ways to the same answer
//
// Nix keeps what it knows in a SQLite database, <state>/db/db.sqlite. Reading it
// costs some 25 microseconds a path and one statement a closure, so it is
// tried first. It is in WAL mode: a reader needs the files db.sqlite-wal and
// db.sqlite-shm as well. Nix before 2.22 removes both when its last process ends
// (later ones leave them, src/libstore/local-store.cc, SQLITE_FCNTL_PERSIST_WAL),
// and SQLite would then have to make them. A user other than the store's owner
// cannot (NixOS/nix#10300), and this package will not, not even as root.
//
// What cannot be read from the database is asked of nix-daemon. Its process opens the
// database in order to answer, so the next question goes to the database again.
//
// SQLite's "immutable" is never used: it ignores the WAL and so tells what was
// true some time ago.
//
// # How fresh an answer is
//
// Every call sees what Nix had committed when the call started; nothing is
// cached here. One Info or Closure comes from one SQL statement and so from one
// state of the store, whatever Nix does meanwhile. Over the daemon a closure is
// put together from many answers, each of them fresh: the daemon turns off the
// memory for paths that other programs of Nix have (openUncachedStore in
// src/nix/unix/daemon.cc).
//
// Callers that cache take Version before they ask, and ask Still before they use
// what they have.
//
// # What it holds on to
//
// An open database has SQLite's shared lock on db.sqlite. Nix reads and writes
// beside it; only what needs the database alone waits, which is switching
// use-sqlite-wal and, before Nix 2.22, removing the -wal and -shm files at exit.
// The lock is gone when anything else in this process opens and closes
// db.sqlite (fcntl's rule), so nothing should.
//
// Refused are a schema other than 10, a database that is not in WAL mode (use-sqlite-wal =
// false locks in a way that a reader cannot join without creating a file), one that has the
// paths of another store directory and none of this one, and rows that do not make sense.
package nixstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"narwharf/cache/nixstore/daemon"
	"narwharf/narinfo"
)

// Options say where a store is. The zero value is the machine's own.
type Options struct {
	// StoreDir is the directory that store paths are named by, "/nix/store" if
	// empty. Nix needs no such directory to exist when Root is set.
	StoreDir string
	// Root is a directory under which the store lies, as in Nix's local?root=:
	// paths are named StoreDir/…, their files are at Root/StoreDir/… and Nix's
	// state is at Root/nix/var/nix.
	Root string
	// StateDir is where Nix keeps its state, Root/nix/var/nix if empty.
	StateDir string
	// DaemonSocket is nix-daemon's socket. If empty it is, as for Nix,
	// $NIX_DAEMON_SOCKET_PATH (not if Root is set: that daemon serves another
	// store) or else StateDir/daemon-socket/socket.
	DaemonSocket string
	// Roots is a folder for GC roots, for Hold where Nix's own cannot be written.
	Roots string
	// Timeout is the longest that a call waits for a locked database or for one
	// answer of the daemon; ten seconds if zero. A context may end it earlier.
	Timeout time.Duration
}

// Store is a local Nix store, read only but for GC roots. Its methods may be called from many
// goroutines at once.
type Store struct {
	storeDir, root string
	state          string
	timeout        time.Duration
	daemon         *daemon.Client

	db       atomic.Pointer[database]
	opening  chan struct{} // holds one token; who has it may replace db
	failed   failure       // guarded by opening
	closed   atomic.Bool
	epochs   atomic.Uint64
	byDaemon atomic.Bool // the last answer came from the daemon

	roots roots

	physicalOnce sync.Once
	physical     string // the store directory without symbolic links, or empty
}

// failure remembers that opening the database failed for a reason that takes
// more than a look at its files to find out.
type failure struct {
	at    time.Time
	files files
	err   error
}

// retryOpen is how long a database that could not be opened is left alone.
const retryOpen = time.Second

// PathInfo is what Nix knows about a path.
type PathInfo = daemon.PathInfo

// Open finds the store and reads nothing but the head of its database. The
// error wraps ErrUnavailable if neither the database nor nix-daemon answers.
func Open(o Options) (*Store, error) {
	s := &Store{storeDir: o.StoreDir, root: o.Root, state: o.StateDir, timeout: o.Timeout, opening: make(chan struct{}, 1)}
	if s.storeDir == "" {
		s.storeDir = "/nix/store"
	}
	if s.root == "/" {
		s.root = ""
	}
	if s.state == "" {
		s.state = s.root + "/nix/var/nix"
	}
	for _, f := range []struct{ name, path string }{{"store directory", s.storeDir}, {"root", s.root}, {"state directory", s.state}} {
		if f.path != "" && (!filepath.IsAbs(f.path) || filepath.Clean(f.path) != f.path || f.path == "/") {
			return nil, fmt.Errorf("open the local Nix store: the %s %q must be an absolute path in its shortest form", f.name, f.path)
		}
	}
	if s.timeout <= 0 {
		s.timeout = 10 * time.Second
	}
	socket := o.DaemonSocket
	if socket == "" && s.root == "" {
		socket = os.Getenv("NIX_DAEMON_SOCKET_PATH")
	}
	if socket == "" {
		socket = s.state + "/daemon-socket/socket"
	}
	s.daemon = daemon.New(socket, s.storeDir, s.timeout)
	s.roots.own = o.Roots

	ctx := context.Background()
	if _, dbErr := s.database(ctx); dbErr != nil {
		if other := (*otherStoreError)(nil); errors.Is(dbErr, ErrLocked) || errors.As(dbErr, &other) {
			return nil, dbErr
		}
		if err := s.daemon.Ping(ctx); err != nil {
			return nil, unavailable(dbErr, err)
		}
	}
	return s, nil
}

// Close gives back all files and connections. Calls under way finish.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.opening <- struct{}{}
	defer func() { <-s.opening }()
	s.daemon.Close()
	s.roots.telling.Lock()
	defer s.roots.telling.Unlock()
	if s.roots.collector != nil {
		_ = s.roots.collector.Close()
	}
	if db := s.db.Swap(nil); db != nil {
		db.retire()
	}
	return nil
}

// StoreDir is the directory that store paths are named by, such as "/nix/store".
func (s *Store) StoreDir() string { return s.storeDir }

// RealPath is where the files of p are: Root, StoreDir and p together. It says
// nothing about whether p is valid.
func (s *Store) RealPath(p narinfo.Path) string { return s.root + p.In(s.storeDir) }

// Backend is "database" or "daemon": who gave the last answer.
func (s *Store) Backend() string {
	if s.byDaemon.Load() {
		return "daemon"
	}
	return "database"
}

// Info is what Nix knows about p, with StoreDir set and URL, Compression,
// FileHash and FileSize empty. The error wraps ErrNotValid if Nix does not know
// p.
func (s *Store) Info(ctx context.Context, p narinfo.Path) (*narinfo.Info, error) {
	i, err := s.PathInfo(ctx, p)
	if err != nil {
		return nil, err
	}
	return i.Info, nil
}

// InfoByHash is Info for the one path whose name starts with the 32 characters
// of hashPart.
func (s *Store) InfoByHash(ctx context.Context, hashPart string) (*narinfo.Info, error) {
	if !narinfo.ValidHash(hashPart) {
		return nil, fmt.Errorf("look up store path %.40q: it is not 32 characters of Nix's base 32", hashPart)
	}
	i, err := s.row(ctx, s.storeDir+"/"+hashPart,
		func(ctx context.Context, db *database) (*PathInfo, error) {
			return db.one(ctx, db.byHash, s.storeDir+"/"+hashPart)
		},
		func() (*PathInfo, error) { return s.daemon.InfoByHash(ctx, hashPart) })
	if err != nil {
		return nil, err
	}
	return i.Info, nil
}

// PathInfo is Info with what only matters on this machine.
func (s *Store) PathInfo(ctx context.Context, p narinfo.Path) (*PathInfo, error) {
	return s.row(ctx, p.In(s.storeDir),
		func(ctx context.Context, db *database) (*PathInfo, error) {
			return db.one(ctx, db.byPath, p.In(s.storeDir))
		},
		func() (*PathInfo, error) { return s.daemon.Info(ctx, p) })
}

// RowError is for what Nix has answered of one path, and makes no sense. It was read
// twice.
type RowError = daemon.RowError

// row asks for one path.
func (s *Store) row(ctx context.Context, what string, base func(context.Context, *database) (*PathInfo, error), remote func() (*PathInfo, error)) (*PathInfo, error) {
	i, err := ask(ctx, s, base, remote)
	if bad := (*RowError)(nil); errors.As(err, &bad) {
		i, err = ask(ctx, s, base, remote)
	}
	if err != nil {
		return nil, named(what, err)
	}
	return i, nil
}

// Closure is the Info of roots and of everything they refer to, directly or
// not, sorted by Path. It is whole or there is an error, which wraps
// ErrNotValid and names the path that is missing if that is the reason.
func (s *Store) Closure(ctx context.Context, roots ...narinfo.Path) ([]*narinfo.Info, error) {
	all, err := ask(ctx, s,
		func(ctx context.Context, db *database) ([]*narinfo.Info, error) { return db.closureOf(ctx, roots) },
		func() ([]*narinfo.Info, error) { return s.daemon.Closure(ctx, roots...) })
	if errors.Is(err, ErrNotValid) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("closure of %s: %w", listed(roots), err)
	}
	return all, nil
}

// Read has fn read Nix's database, perhaps twice. It is for what the daemon is not asked
// about: where it alone answers the error wraps ErrNotValid.
func (s *Store) Read(ctx context.Context, fn func(context.Context, *sql.DB) error) error {
	_, err := ask(ctx, s,
		func(ctx context.Context, db *database) (any, error) { return nil, fn(ctx, db.sql) },
		func() (any, error) { return nil, cmp.Or(s.daemon.Ping(ctx), ErrNotValid) })
	return err
}

// Version stands for a state of the store, see Store.Version. The zero value is
// no state.
type Version struct {
	epoch uint64
	head  head
}

// Version is a mark that callers who cache can compare: if two are equal, Nix
// committed nothing in between. Two that differ may be of the same state: the
// daemon cannot tell, so each one that comes by way of it is new.
func (s *Store) Version(ctx context.Context) (Version, error) {
	v, err := ask(ctx, s,
		func(ctx context.Context, db *database) (Version, error) {
			if h, ok, err := db.head(ctx); ok || err != nil {
				return Version{db.epoch, h}, err
			}
			return Version{epoch: s.epochs.Add(1)}, nil
		},
		func() (Version, error) { return Version{epoch: s.epochs.Add(1)}, s.daemon.Ping(ctx) })
	if err != nil {
		return Version{}, fmt.Errorf("state of the local store: %w", err)
	}
	return v, nil
}

// Still reports whether v is the Version now. It costs one system call, waits for
// nothing and opens nothing; whatever stands in its way makes it false. What Nix
// commits makes it false at once; that somebody has put another database in
// place may go unseen for ten milliseconds.
func (s *Store) Still(v Version) bool {
	db := s.db.Load()
	if db == nil || db.epoch != v.epoch || !db.inPlace() {
		return false
	}
	h, ok := db.glance()
	return ok && h == v.head
}

// named puts what was asked for in front of an error; ErrNotValid reads as a
// sentence that starts with it.
func named(what string, err error) error {
	if errors.Is(err, ErrNotValid) {
		return fmt.Errorf("%s %w", what, err)
	}
	return fmt.Errorf("look up %s: %w", what, err)
}

// listed names the first of paths and how many more there are.
func listed(paths []narinfo.Path) string {
	switch len(paths) {
	case 0:
		return "nothing"
	case 1:
		return string(paths[0])
	}
	return fmt.Sprintf("%s and %d more", paths[0], len(paths)-1)
}
