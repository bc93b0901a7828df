package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache"
	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/local"
	"narwharf/cache/signed"
	"narwharf/cache/upload"
	"narwharf/cache/upload/adopt"
	"narwharf/hooks"
	"narwharf/hooks/audit"
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

// openCache opens files and index, and with recoverNow makes them agree after a kill.
// own is the machine's own store, nil if it is not served; signer is nil where
// nothing is.
func openCache(d *dataDir, own *local.Store, signer *signed.Signer, recoverNow bool) (*cacheDir, error) {
	c := &cacheDir{data: d}
	var err error
	c.files, err = blob.NewFS(filepath.Join(d.cfg.DataDir, "cache"), filepath.Join(d.cfg.DataDir, "tmp"))
	if err == nil {
		err = c.files.Clean()
	}
	if err == nil {
		c.index, err = index.Open(d.state)
	}
	if err != nil {
		return nil, err
	}
	uploads := upload.Options{
		StoreDir:        d.cfg.Cache.StoreDir,
		AllowIncomplete: d.cfg.Cache.AllowIncomplete,
		MaxNarSize:      int64(d.cfg.Cache.MaxNarSize),
		NarGrace:        time.Duration(d.cfg.Cache.NarGrace),
		Counted:         c.index.Files(),
	}
	adoption := adopt.Options{Log: d.log}
	if own != nil {
		uploads.Local, adoption.Local = own, own
	}
	if signer != nil {
		uploads.Changed, adoption.Sign = signer.Forget, signer.Signatures
	}
	if c.uploads, err = upload.New(c.files, c.index, uploads, d.log); err != nil {
		return nil, fmt.Errorf("%s: %w", d.cfg.DataDir, err)
	}
	adoption.Uploads = c.uploads
	c.adopter = adopt.New(adoption)
	c.access = &cache.ChannelAccess{Adopter: c.adopter, Uploads: c.uploads, Local: own}
	if c.consistent = !c.index.Dirty(); !c.consistent && recoverNow {
		_, _, err = c.uploads.Recover()
		c.consistent = err == nil
	}
	return c, err
}

// openChannels opens the channels. publicKeys are those that the cache signs with.
func (c *cacheDir) openChannels(auth *access.Authenticator, publicKeys func() []signing.PublicKey, metrics prometheus.Registerer) (*hooks.Server, error) {
	d := c.data
	return hooks.New(hooks.Options{
		State: d.state, Cache: c.access, Files: cache.ChannelFiles{Store: c.files}, Access: auth, Tokens: d.tokens, Audit: audit.Limits{Keep: time.Duration(d.cfg.Audit.Keep), MaxSize: int64(d.cfg.Audit.MaxSize)},
		Bootstrap: bootstrapMaker(d.cfg, publicKeys), Log: d.log, Metrics: metrics,
	})
}

// Close tells the next start that files and index agree, if they do.
func (c *cacheDir) Close() error {
	if !c.consistent || c.uploads.NeedsRecovery() {
		return nil
	}
	n := c.uploads.Counts()
	return c.index.Close(index.Files{Count: n.NarFiles, Size: n.NarBytes})
}
