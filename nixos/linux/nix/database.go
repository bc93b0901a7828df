package nix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"narwharf/cache/nixstore"
	"narwharf/narinfo"
	"narwharf/nixos"
)

// Path implements nixos.Store.
func (s *Store) Path(ctx context.Context, p narinfo.Path) (*nixos.StorePath, error) {
	i, err := s.database.info(ctx, p)
	if errors.Is(err, nixstore.ErrUnavailable) {
		if err := s.database.keepOpen(ctx); err != nil {
			return nil, err
		}
		i, err = s.database.info(ctx, p)
	}
	if errors.Is(err, nixstore.ErrNotValid) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &nixos.StorePath{Info: i.Info, Ultimate: i.Ultimate}, nil
}

// A database is Nix's, opened when it is needed.
type database struct {
	options nixstore.Options

	mu     sync.Mutex
	store  *nixstore.Store
	holder func() // ends the process that holds the database open
}

func (d *database) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.holder != nil {
		d.holder()
	}
	if d.store != nil {
		d.store.Close() // it was only read
	}
}

func (d *database) info(ctx context.Context, p narinfo.Path) (*nixstore.PathInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.store == nil {
		store, err := nixstore.Open(d.options)
		if err != nil {
			return nil, err
		}
		d.store = store
	}
	return d.store.PathInfo(ctx, p)
}

// keepOpen lets a Nix process hold the store's database open for a minute.
// Without nix-daemon Nix before 2.22 removes the database's -wal file when its
// last process ends, and then nobody else can read it; a store that was never
// used has no database at all.
func (d *database) keepOpen(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.holder != nil {
		d.holder()
	}
	// It opens the store and waits for a client's greeting.
	cmd := exec.Command("nix-store", "--serve")
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run nix-store: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait() //nolint:errcheck // it ends because its input does
		close(ended)
	}()
	stop := sync.OnceFunc(func() {
		in.Close()
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			cmd.Process.Kill() //nolint:errcheck // it has ended
		}
	})
	d.holder = stop
	time.AfterFunc(time.Minute, stop)
	wal := filepath.Join(d.options.StateDir, "db", "db.sqlite-wal")
	for range 100 {
		if _, err := os.Stat(wal); err == nil {
			return nil
		}
		select {
		case <-ended:
			return errors.New("nix-store --serve ended at once: the Nix store does not work")
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil // it may be behind nix-daemon
}
