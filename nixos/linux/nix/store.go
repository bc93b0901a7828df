// Package nix is the Nix store of the host that the agent runs on, by nix-store and by a
// look into its database: paths, downloads, garbage collector roots.
package nix

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"

	"narwharf/cache/nixstore"
	"narwharf/cache/state/durable"
	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/nixos"
	"narwharf/nixos/config"
	"narwharf/nixos/linux/command"
	"narwharf/nixos/linux/kernel"
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
	_, _, err := command.Run(ctx, 4096, s.nixEnv(), "nix-store", append(args, "--option", "substitute", "false", "--option", "max-jobs", "0")...)
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
	_, _, err := command.Run(ctx, 4096, s.nixEnv(), "nix-store", args...)
	return err
}

// Verify implements nixos.Store.
func (s *Store) Verify(ctx context.Context, p narinfo.Path) (bool, error) {
	_, words, err := command.Run(ctx, 4096, s.nixEnv(), "nix-store", "--verify-path", p.In(s.config.StoreDir))
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		s.log.Warn("a path is damaged", "path", p, "nix", words)
		return false, nil // also what cannot be read
	}
	return err == nil, err
}

// Free implements nixos.Store.
func (s *Store) Free(context.Context) (int64, error) {
	return kernel.Free(s.config.StoreRoot + s.config.StoreDir)
}
