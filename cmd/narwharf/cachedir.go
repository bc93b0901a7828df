package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache"
	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/local"
	"narwharf/cache/upload"
	"narwharf/cache/upload/adopt"
	"narwharf/hooks"
	"narwharf/signing"
	"narwharf/signing/access"
)

// cacheDir is the cache in an open data_dir.
type cacheDir struct {
	data    *dataDir
	files   *blob.FS
	index   *index.Table
	uploads *upload.Store
	adopter *adopt.Adopter
	access  *cache.ChannelAccess

	consistent bool // files and index agree
}

// openCache opens files and index. own is the machine's own store, nil if it is not
// served; signer is nil where nothing is.
func openCache(d *dataDir, own *local.Store, signer *cache.Signer) (*cacheDir, error) {
	c := &cacheDir{data: d}
	var err error
	if c.files, err = blob.NewFS(filepath.Join(d.cfg.DataDir, "cache"), filepath.Join(d.cfg.DataDir, "tmp")); err != nil {
		return nil, err
	}
	if err := c.files.Clean(); err != nil {
		return nil, err
	}
	if err := checkStoreDir(d.cfg, c.files); err != nil {
		return nil, err
	}
	if c.index, err = index.Open(d.state); err != nil {
		return nil, err
	}
	uploads := upload.Options{
		StoreDir:        d.cfg.Cache.StoreDir,
		AllowIncomplete: d.cfg.Cache.AllowIncomplete,
		MaxNarSize:      int64(d.cfg.Cache.MaxNarSize),
		NarGrace:        time.Duration(d.cfg.Cache.NarGrace),
	}
	adoption := adopt.Options{Log: d.log}
	if own != nil {
		uploads.Local, adoption.Local = own, own
	}
	if signer != nil {
		uploads.Changed, adoption.Sign = signer.Forget, signer.Signatures
	}
	if c.uploads, err = upload.New(c.files, c.index, uploads, d.log); err != nil {
		return nil, err
	}
	adoption.Uploads = c.uploads
	c.adopter = adopt.New(adoption)
	c.access = cache.NewChannelAccess(c.uploads, c.adopter, own)
	c.consistent = !c.index.Dirty()
	return c, nil
}

// recover makes files and index agree, if the last process was killed or somebody
// changed the files.
func (c *cacheDir) recover() error {
	if c.consistent {
		return nil
	}
	added, dropped, err := c.uploads.Recover()
	if err != nil {
		return fmt.Errorf("make the index agree with the files: %w", err)
	}
	c.consistent = true
	if added+dropped > 0 {
		c.data.log.Info("made the index agree with the files", "added", added, "dropped", dropped)
	}
	return nil
}

// openChannels opens the channels. publicKeys are those that the cache signs with.
func (c *cacheDir) openChannels(auth *access.Authenticator, publicKeys func() []signing.PublicKey, metrics prometheus.Registerer) (*hooks.Server, error) {
	d := c.data
	return hooks.New(hooks.Options{
		DB: d.state.DB(), Cache: c.access, Files: contentFiles{c.files}, Access: auth, Tokens: d.tokens, Bootstrap: bootstrapMaker(d.cfg, publicKeys), Log: d.log, Metrics: metrics,
	})
}

// Close tells the next start that files and index agree, if they do.
func (c *cacheDir) Close() error {
	if !c.consistent || c.uploads.NeedsRecovery() {
		return nil
	}
	return c.index.Close()
}

// checkStoreDir keeps paths of two store directories out of one cache, and
// keeps nix-cache-info beside the files so that they are a file:// cache.
func checkStoreDir(cfg *Config, files blob.Store) error {
	const name = "nix-cache-info"
	want := fmt.Sprintf("StoreDir: %s\n", cfg.Cache.StoreDir)
	text, err := blob.ReadFile(files, name, 4096)
	if errors.Is(err, os.ErrNotExist) {
		return blob.WriteFile(files, name, []byte(want))
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if dir, ok := strings.CutPrefix(line, "StoreDir:"); ok && strings.TrimSpace(dir) != cfg.Cache.StoreDir {
			return fmt.Errorf("%s holds paths of %s, and the configuration has cache.store_dir = %q: use another data_dir for it", cfg.DataDir, strings.TrimSpace(dir), cfg.Cache.StoreDir)
		}
	}
	return nil
}
