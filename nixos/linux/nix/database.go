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
	i, err := s.lookUp(ctx, p)
	if errors.Is(err, nixstore.ErrUnavailable) {
		if err := s.keepOpen(ctx); err != nil {
			return nil, err
		}
		i, err = s.lookUp(ctx, p)
	}
	if errors.Is(err, nixstore.ErrNotValid) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &nixos.StorePath{Info: i.Info, Ultimate: i.Ultimate}, nil
}

func (s *Store) lookUp(ctx context.Context, p narinfo.Path) (*nixstore.PathInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		db, err := nixstore.Open(nixstore.Options{StoreDir: s.config.StoreDir, Root: s.config.StoreRoot, StateDir: s.config.NixState})
		if err != nil {
			return nil, err
		}
		s.db = db
	}
	return s.db.PathInfo(ctx, p)
}

// keepOpen lets a Nix process hold the store's database open for a minute.
// Without nix-daemon Nix before 2.22 removes the database's -wal file when its
// last process ends, and then nobody else can read it; a store that was never
// used has no database at all.
func (s *Store) keepOpen(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder != nil {
		s.holder()
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
	s.holder = stop
	time.AfterFunc(time.Minute, stop)
	wal := filepath.Join(s.config.NixState, "db", "db.sqlite-wal")
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
