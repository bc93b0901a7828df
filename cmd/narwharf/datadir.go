package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache"
	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/state"
	"narwharf/cache/state/bolt"
	"narwharf/hooks"
	"narwharf/signing"
	"narwharf/signing/access"
)

// schema is the version of data_dir as a whole.
const schema = "1"

const (
	schemaBucket = "narwharf"
	schemaKey    = "schema"
)

// dataDir is an open data_dir. One process at a time has it.
type dataDir struct {
	cfg    *Config
	log    *slog.Logger
	state  *bolt.Store
	tokens *access.Tokens

	// Set by openCache.
	blobs   *blob.FS
	index   *index.Table
	uploads *cache.Uploads
	broken  bool // files and index could not be made to agree

	channels *hooks.Server // set by openChannels

	publicKeys func() []signing.PublicKey // the server's; nil where nothing is served
}

// openChannels opens the channels; the cache is open.
func (d *dataDir) openChannels(auth *access.Authenticator, metrics prometheus.Registerer) (err error) {
	d.channels, err = hooks.New(hooks.Options{
		DB: d.state.DB(), Cache: d.uploads, Files: contentFiles{d.blobs}, Access: auth, Tokens: d.tokens, Bootstrap: bootstrapMaker(d.cfg, d.publicKeys), Log: d.log, Metrics: metrics,
	})
	return err
}

// openDataDir opens data_dir, making it if it is empty or absent. It waits a
// little for a process that is just leaving.
func openDataDir(cfg *Config, log *slog.Logger) (*dataDir, error) {
	if err := os.MkdirAll(cfg.DataDir, 0o755); err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	if err := becomeOwner(cfg.DataDir); err != nil {
		return nil, err
	}
	file := filepath.Join(cfg.DataDir, "narwharf.db")
	st, err := bolt.Open(file, bolt.Options{})
	if errors.Is(err, state.ErrInUse) {
		return nil, fmt.Errorf("%s is %w by another narwharf that does not answer on its admin socket: see who with `fuser %s`", file, state.ErrInUse, file)
	}
	if err != nil {
		return nil, err
	}
	d := &dataDir{cfg: cfg, log: log, state: st}
	var restored int
	if err = checkSchema(st); err == nil {
		d.tokens, restored, err = access.Open(context.Background(), st, filepath.Join(cfg.DataDir, "tokens"))
	}
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	if restored > 0 {
		log.Info("the database lacked tokens, they are back from their file", "tokens", restored)
	}
	return d, nil
}

// checkSchema refuses a state that a newer narwharf wrote.
func checkSchema(st state.Store) error {
	return st.Update(context.Background(), []string{schemaBucket}, func(tx state.Tx) error {
		v, err := tx.Get(schemaBucket, schemaKey)
		switch {
		case err != nil || string(v) == schema:
			return err
		case v == nil:
			return tx.Put(schemaBucket, schemaKey, []byte(schema))
		}
		return fmt.Errorf("%s has version %s and this narwharf knows version %s: use the newer narwharf", st, v, schema)
	})
}

// openCache opens files and index and makes them agree, if the last process
// was killed or somebody changed the files.
func (d *dataDir) openCache(recoverNow bool) error {
	root := filepath.Join(d.cfg.DataDir, "cache")
	var err error
	if d.blobs, err = blob.NewFS(root, filepath.Join(d.cfg.DataDir, "tmp")); err != nil {
		return err
	}
	if err := d.blobs.Clean(); err != nil {
		return err
	}
	if err := d.checkStoreDir(); err != nil {
		return err
	}
	if d.index, err = index.Open(d.state); err != nil {
		return err
	}
	d.uploads = cache.NewUploads(d.blobs, d.index, cache.UploadOptions{
		StoreDir:        d.cfg.Cache.StoreDir,
		AllowIncomplete: d.cfg.Cache.AllowIncomplete,
		MaxNarSize:      int64(d.cfg.Cache.MaxNarSize),
		NarGrace:        time.Duration(d.cfg.Cache.NarGrace),
	}, d.log)
	if d.index.Dirty() && recoverNow {
		d.broken = true
		added, dropped, err := d.uploads.Recover()
		if err != nil {
			return fmt.Errorf("make the index agree with the files: %w", err)
		}
		d.broken = false
		if added+dropped > 0 {
			d.log.Info("made the index agree with the files", "added", added, "dropped", dropped)
		}
	}
	return d.uploads.Measure()
}

// checkStoreDir keeps paths of two store directories out of one cache, and
// keeps nix-cache-info beside the files so that they are a file:// cache.
func (d *dataDir) checkStoreDir() error {
	const name = "nix-cache-info"
	want := fmt.Sprintf("StoreDir: %s\n", d.cfg.Cache.StoreDir)
	text, err := blob.ReadFile(d.blobs, name, 4096)
	if errors.Is(err, os.ErrNotExist) {
		return blob.WriteFile(d.blobs, name, []byte(want))
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if dir, ok := strings.CutPrefix(line, "StoreDir:"); ok && strings.TrimSpace(dir) != d.cfg.Cache.StoreDir {
			return fmt.Errorf("%s holds paths of %s, and the configuration has cache.store_dir = %q: use another data_dir for it", d.cfg.DataDir, strings.TrimSpace(dir), d.cfg.Cache.StoreDir)
		}
	}
	return nil
}

// Close leaves data_dir in order.
func (d *dataDir) Close() error {
	var err error
	if d.index != nil && d.uploads != nil && !d.broken && !d.uploads.Torn() {
		err = d.index.Close()
	}
	return errors.Join(err, d.state.Close())
}

// becomeOwner makes a process of root's work as the owner of dir, so that
// `sudo narwharf …` leaves no file that the service cannot read.
func becomeOwner(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	uid, gid := int(owner.Uid), int(owner.Gid)
	if err := syscall.Setgroups([]int{gid}); err != nil {
		return fmt.Errorf("work as the owner of %s: %w", dir, err)
	}
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return fmt.Errorf("work as the owner of %s: %w", dir, err)
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return fmt.Errorf("work as the owner of %s: %w", dir, err)
	}
	return nil
}

// newLogger writes text to stderr, where systemd and people look for it.
func newLogger(cfg *Config, w *os.File) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
		return nil, fmt.Errorf("log.level: %q is none of debug, info, warn, error", cfg.Log.Level)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})), nil
}
