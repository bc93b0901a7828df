package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/local"
	"narwharf/cache/local/compress"
	"narwharf/cache/nixstore"
	"narwharf/cache/upstream"
	"narwharf/hooks/serverconfig"
)

// sources are what is served beside the uploads.
type sources struct {
	own *local.Store        // nil if it is not served
	ups *upstream.Upstreams // nil if there are none

	store  *nixstore.Store
	packed *compress.Store
}

// openSources opens the store of this machine, if it is to be served, and the upstreams. It comes
// after data_dir: the process is then the user that it stays. A store that cannot be read is
// left out if unreadable says so.
func (d *DataDir) openSources(registry prometheus.Registerer, unreadable func(error) error) (_ *sources, err error) {
	cfg := d.Config
	from := new(sources)
	defer func() {
		if err != nil {
			err = errors.Join(err, from.Close())
		}
	}()
	if from.store, err = openStore(cfg); err != nil {
		if err = unreadable(err); err != nil {
			return nil, err
		}
	}
	if from.store != nil || len(cfg.Upstreams) > 0 {
		if from.packed, err = d.openPacked(registry); err != nil {
			return nil, err
		}
	}
	if from.store != nil {
		if registry != nil {
			d.log.Info("serving the local store", "store", filepath.Join(cfg.Cache.StoreRoot, from.store.StoreDir()), "by", from.store.Backend())
		}
		from.own = local.New(from.store, from.packed, filepath.Join(cfg.Cache.StoreRoot, "/nix/var/log/nix"), d.log)
	}
	from.ups, err = d.openUpstreams(from.packed, registry)
	return from, err
}

// Close closes what is open of them.
func (s *sources) Close() error {
	s.ups.Close()
	var err error
	if s.packed != nil {
		err = s.packed.Close()
	}
	if s.store != nil {
		err = errors.Join(err, s.store.Close())
	}
	return err
}

// openUpstreams makes the clients of the caches behind this one.
func (d *DataDir) openUpstreams(packed *compress.Store, registry prometheus.Registerer) (*upstream.Upstreams, error) {
	o := upstream.Options{StoreDir: d.Config.Cache.StoreDir, State: d.State, Packed: packed, Log: d.log, Metrics: registry}
	for i := range d.Config.Upstreams {
		u := &d.Config.Upstreams[i]
		token, err := u.Token()
		if err != nil {
			return nil, err
		}
		o.Upstreams = append(o.Upstreams, upstream.Config{URL: u.Where(), Keys: u.Keys(), PullThrough: u.Pulls(), Keep: u.Keeps(), Token: token, Sign: u.Sign, Rate: int64(u.Rate)})
		if registry != nil {
			d.log.Info("leaning on an upstream", "url", u.URL, "pull_through", u.Pulls(), "keep", u.Keep)
		}
	}
	return upstream.New(o)
}

// openPacked opens what is encoded of the store of this machine and pulled from upstreams.
func (d *DataDir) openPacked(registry prometheus.Registerer) (*compress.Store, error) {
	packed, err := compress.Open(compress.Options{
		Dir:     filepath.Join(d.Config.DataDir, "packed"), // not in cache/, which stays a plain Nix cache
		Limit:   int64(d.Config.Cache.NarCacheSize),
		Log:     d.log,
		Metrics: registry,
	})
	if err != nil {
		return nil, err
	}
	return packed, nil
}

// openStore opens the store that the configuration has served, nil if none.
func openStore(cfg *serverconfig.Config) (*nixstore.Store, error) {
	if !cfg.Cache.ServeStore {
		return nil, nil
	}
	store, err := nixstore.Open(nixstore.Options{
		StoreDir: cfg.Cache.StoreDir, Root: cfg.Cache.StoreRoot, Roots: filepath.Join(cfg.DataDir, "gcroots"),
	})
	if err != nil {
		return nil, fmt.Errorf("cache.serve_store is true: %w (as user %d); or set serve_store = false in %s, and uploads alone are served", err, os.Geteuid(), cfg.Path())
	}
	return store, nil
}
