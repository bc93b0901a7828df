// Package nix is the Nix store of the host that the agent runs on, by nix-store and by a
// look into its database: paths, downloads, garbage collector roots.
package nix

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"narwharf/cache/nixstore"
	"narwharf/cache/state/durable"
	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/nixos"
	"narwharf/nixos/config"
	"narwharf/nixos/linux/sys"
)

// A Store implements nixos.Store.
type Store struct {
	config   *config.Config
	client   *api.Client // of the server, which is a cache, too
	log      *slog.Logger
	database database
}

var _ nixos.Store = (*Store)(nil)

// New opens nothing before it is used.
func New(c *config.Config, client *api.Client, log *slog.Logger) *Store {
	return &Store{config: c, client: client, log: log,
		database: database{options: nixstore.Options{StoreDir: c.StoreDir, Root: c.StoreRoot, StateDir: c.NixState}}}
}

// Close ends what the store holds open.
func (s *Store) Close() { s.database.close() }

func (s *Store) root(name string) string { return filepath.Join(s.config.StateDir, "gcroots", name) }

// rootArgs makes an indirect root, the same way in Nix 2.8 to 2.34: newer ones
// ignore --indirect, since all roots outside of gcroots/ are that.
func (s *Store) rootArgs(name string) []string {
	return []string{"--add-root", s.root(name), "--indirect"}
}

func (s *Store) nixEnv() []string {
	env := []string{"XDG_CACHE_HOME=" + filepath.Join(s.config.StateDir, "cache")}
	if s.config.CAFile != "" {
		env = append(env, "NIX_SSL_CERT_FILE="+s.config.CAFile)
	}
	return env
}

// Root implements nixos.Store. The path is there, so nothing is fetched.
func (s *Store) Root(ctx context.Context, root, path string) error {
	// Also where the link is there already: a crash may have come between it
	// and its registration with Nix.
	args := append([]string{"--realise", path}, s.rootArgs(root)...)
	_, _, err := sys.Run(ctx, 4096, s.nixEnv(), "nix-store", append(args, "--option", "substitute", "false", "--option", "max-jobs", "0")...)
	return err
}

// Unroot implements nixos.Store.
func (s *Store) Unroot(_ context.Context, root string) error {
	if err := os.Remove(s.root(root)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return durable.SyncDir(filepath.Dir(s.root(root)))
}

// Delete implements nixos.Store.
func (s *Store) Delete(ctx context.Context, paths []narinfo.Path) error {
	if len(paths) == 0 {
		return nil
	}
	args := []string{"--delete"}
	for _, p := range paths {
		args = append(args, p.In(s.config.StoreDir))
	}
	_, _, err := sys.Run(ctx, 4096, s.nixEnv(), "nix-store", args...)
	return err
}

// Verify implements nixos.Store.
func (s *Store) Verify(ctx context.Context, p narinfo.Path) (bool, error) {
	_, words, err := sys.Run(ctx, 4096, s.nixEnv(), "nix-store", "--verify-path", p.In(s.config.StoreDir))
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		s.log.Warn("a path is damaged", "path", p, "nix", words)
		return false, nil // also what cannot be read
	}
	return err == nil, err
}

// Free implements nixos.Store.
func (s *Store) Free(context.Context) (int64, error) {
	return sys.Free(s.config.StoreRoot + s.config.StoreDir)
}

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
	held, end := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	cmd := exec.CommandContext(held, "nix-store", "--serve") // it opens the store and waits for a client's greeting
	in, err := cmd.StdinPipe()
	if err == nil {
		cmd.Cancel, cmd.WaitDelay = in.Close, 5*time.Second
		err = cmd.Start()
	}
	if err != nil {
		end()
		return fmt.Errorf("run nix-store: %w", err)
	}
	go func() {
		cmd.Wait() //nolint:errcheck // it ends because its input does
		end()
	}()
	d.holder = end
	wal := filepath.Join(d.options.StateDir, "db", "db.sqlite-wal")
	for range 100 {
		if _, err := os.Stat(wal); err == nil {
			return nil
		}
		select {
		case <-held.Done():
			return errors.New("nix-store --serve ended at once: the Nix store does not work")
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil // it may be behind nix-daemon
}
