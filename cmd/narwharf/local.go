package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache"
	"narwharf/cache/nixstore"
	"narwharf/cache/pack"
)

// openLocal opens the store of this machine, if it is to be served; else local
// is nil. It comes after data_dir: the process is then the user that it stays.
func openLocal(cfg *Config, registry prometheus.Registerer, log *slog.Logger) (local *cache.Local, done func() error, err error) {
	if !cfg.Cache.ServeStore {
		return nil, func() error { return nil }, nil
	}
	root := filepath.Clean(cfg.Cache.StoreRoot)
	if cfg.Cache.StoreRoot == "" || root == "/" {
		root = ""
	}
	store, err := nixstore.Open(nixstore.Options{StoreDir: cfg.Cache.StoreDir, Root: root})
	if err != nil {
		return nil, nil, fmt.Errorf("cache.serve_store is true: %w (as user %d); or set serve_store = false in %s, and uploads alone are served", err, os.Geteuid(), cfg.path)
	}
	packed, err := pack.Open(pack.Options{
		Dir:     filepath.Join(cfg.DataDir, "packed"), // not in cache/, which stays a plain Nix cache
		Limit:   int64(cfg.Cache.NarCacheSize),
		Log:     log,
		Metrics: registry,
	})
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("cache.serve_store: %w", err), store.Close())
	}
	log.Info("serving the local store", "store", store.RealPath(""), "by", store.Backend())
	done = func() error { return errors.Join(packed.Close(), store.Close()) }
	return cache.NewLocal(store, packed, root+"/nix/var/log/nix", log), done, nil
}
