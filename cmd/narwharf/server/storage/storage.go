// Package storage opens what the section [storage] of the configuration names: the state and
// the content files.
//
// A state that servers share belongs to one set of content files. Both have the same id, and a
// pair that does not belong together is refused: half of what it knows of would be missing.
package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/blob"
	"narwharf/cache/state"
	"narwharf/cache/state/postgres"
	"narwharf/hooks/replica"
	"narwharf/hooks/serverconfig"
)

// OpenState opens the state: a database, or a file in data_dir. In either way one process at a time has
// data_dir; another is state.ErrInUse, wrapped. A state that is moved elsewhere, or was, is a *state.Frozen.
func OpenState(ctx context.Context, cfg *serverconfig.Config, log *slog.Logger) (state.Store, error) {
	st, err := openState(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	frozen, err := st.Frozen(ctx)
	if err == nil && frozen != nil {
		err = fmt.Errorf("%s: %w", st, frozen)
	}
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return st, nil
}

func openState(ctx context.Context, cfg *serverconfig.Config, log *slog.Logger) (state.Movable, error) {
	file := StateFile(cfg)
	if !cfg.Storage.Shared() {
		return openFile(file, Place(cfg))
	}
	if _, err := os.Stat(file); err == nil {
		return nil, fmt.Errorf("storage.state is a database, and %s has the state of a server by itself, which would not be read: bring it there with narwharf migrate and another folder as data_dir, or move the file away if it is not needed", file)
	}
	lock, err := lockDir(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	st, err := openDatabase(ctx, cfg, Place(cfg), log)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &locked{st, lock}, nil
}

func inUse(file string, err error) error {
	if errors.Is(err, state.ErrInUse) {
		return fmt.Errorf("%s is %w by another narwharf that does not answer on its admin socket: see who with `fuser %s`", file, state.ErrInUse, file)
	}
	return err
}

// locked is a state with the lock of data_dir.
type locked struct {
	*postgres.Store
	lock *os.File
}

// Close implements state.Store.
func (l *locked) Close() error { return errors.Join(l.Store.Close(), l.lock.Close()) }

// Clock is the time that all servers have which share a state: the database's. nil where there is one server.
func Clock(st state.Store) func() time.Time {
	if l, ok := st.(*locked); ok {
		return l.Clock
	}
	return nil
}

// Ahead is by how much the clock of the database is ahead of this machine's; 0 where there is none.
func Ahead(st state.Store) func() time.Duration {
	if l, ok := st.(*locked); ok {
		return l.Ahead
	}
	return func() time.Duration { return 0 }
}

// Away is since when the database does not answer, the zero time if it does or there is none.
func Away(st state.Store) func() time.Time {
	if l, ok := st.(*locked); ok {
		return l.Away
	}
	return func() time.Time { return time.Time{} }
}

// lockPatience is how long a command waits for a process that is just leaving.
const lockPatience = 3 * time.Second

// lockDir keeps other processes out of a data_dir, in which the state is not.
func lockDir(dir string) (*os.File, error) {
	name := filepath.Join(dir, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
		case time.Since(begun) > lockPatience:
			return nil, errors.Join(inUse(name, state.ErrInUse), f.Close())
		}
	}
}

// OpenContent opens the content files, and removes what writers of earlier runs of this server left.
// A folder that servers share has a folder for what each is writing. What is of io.Closer is to be closed.
func OpenContent(cfg *serverconfig.Config, log *slog.Logger, metrics prometheus.Registerer) (blob.Store, error) {
	if cfg.Storage.Bucket() != nil {
		return openBucket(cfg, log, metrics)
	}
	root, tmp := filepath.Join(cfg.DataDir, "cache"), filepath.Join(cfg.DataDir, "tmp")
	if dir := cfg.Storage.Content; dir != "" {
		id, err := ID(cfg)
		if err != nil {
			return nil, err
		}
		root, tmp = dir, filepath.Join(dir, ".tmp-"+id)
	}
	files, err := blob.NewFS(root, tmp)
	if err != nil {
		return nil, err
	}
	return files, files.Clean()
}

// ID is the id of the server that has a data_dir: 26 letters and digits. It is made when it is first
// asked for.
func ID(cfg *serverconfig.Config) (string, error) {
	name := filepath.Join(cfg.DataDir, "server-id")
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		text = []byte(strings.ToLower(rand.Text()) + "\n")
		err = os.WriteFile(name, text, 0o644)
	}
	if err != nil {
		return "", fmt.Errorf("the id of this server: %w", err)
	}
	id := strings.TrimSpace(string(text))
	if len(id) != 26 {
		return "", fmt.Errorf("%s is no id of a server: remove it, and another is made", name)
	}
	return id, nil
}

// Alone refuses work that is not to be done beside other servers of the same state.
func Alone(ctx context.Context, cfg *serverconfig.Config, st state.Store, what string) error {
	if !cfg.Storage.Shared() {
		return nil
	}
	id, err := ID(cfg)
	if err != nil {
		return err
	}
	return replica.Alone(ctx, st, id, what)
}

const (
	idBucket = "narwharf"
	idKey    = "content"
	idFile   = "narwharf-content"
)

// Pair sees to it that a state and content files belong together. The first server makes them a pair.
func Pair(ctx context.Context, st state.Store, files blob.Store) error {
	return st.Update(ctx, []string{idBucket}, func(tx state.Tx) error {
		known, err := tx.Get(idBucket, idKey)
		if err != nil {
			return err
		}
		text, err := blob.ReadFile(files, idFile, 1<<10)
		is := strings.TrimSpace(string(text))
		switch {
		case errors.Is(err, fs.ErrNotExist) && known == nil:
			is = rand.Text()
			if err := blob.WriteFile(files, idFile, []byte(is+"\n")); err != nil {
				return err
			}
			return tx.Put(idBucket, idKey, []byte(is))
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%s belongs to content files that are not where storage.content says: a file %s is missing there. Name their place; where they were lost and this shall be a new place for them, write the line %q into that file", st, idFile, known)
		case err != nil:
			return fmt.Errorf("look whose content files these are: %w", err)
		case known == nil: // a new database: narwharf rebuild fills it from the files
			return tx.Put(idBucket, idKey, []byte(is))
		case is != string(known):
			return fmt.Errorf("%s belongs to other content files than those that storage.content names: %s has %q there, and %q is in the database", st, idFile, is, known)
		}
		return nil
	})
}
