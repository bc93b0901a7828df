package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/local"
	"narwharf/cache/local/compress"
	"narwharf/cache/nixstore"
	"narwharf/hooks/serverconfig"
)

// openLocal opens the store of this machine, if it is to be served; else own
// is nil. It comes after data_dir: the process is then the user that it stays.
func openLocal(cfg *serverconfig.Config, registry prometheus.Registerer, log *slog.Logger) (own *local.Store, done func() error, err error) {
	store, err := openStore(cfg)
	if store == nil || err != nil {
		return nil, func() error { return nil }, err
	}
	packed, err := compress.Open(compress.Options{
		Dir:     filepath.Join(cfg.DataDir, "packed"), // not in cache/, which stays a plain Nix cache
		Limit:   int64(cfg.Cache.NarCacheSize),
		Log:     log,
		Metrics: registry,
	})
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("cache.serve_store: %w", err), store.Close())
	}
	log.Info("serving the local store", "store", filepath.Join(cfg.Cache.StoreRoot, store.StoreDir()), "by", store.Backend())
	own = local.New(store, packed, filepath.Join(cfg.Cache.StoreRoot, "/nix/var/log/nix"), log)
	return own, func() error { return errors.Join(packed.Close(), store.Close()) }, nil
}

// openStore opens the store that the configuration has served, nil if none.
func openStore(cfg *serverconfig.Config) (*nixstore.Store, error) {
	if !cfg.Cache.ServeStore {
		return nil, nil
	}
	store, err := nixstore.Open(nixstore.Options{StoreDir: cfg.Cache.StoreDir, Root: cfg.Cache.StoreRoot})
	if err != nil {
		return nil, fmt.Errorf("cache.serve_store is true: %w (as user %d); or set serve_store = false in %s, and uploads alone are served", err, os.Geteuid(), cfg.Path())
	}
	return store, nil
}
