package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache"
	"narwharf/cache/local"
	"narwharf/cache/signed"
	"narwharf/cache/upload"
	"narwharf/hooks"
	"narwharf/hooks/audit"
	"narwharf/signing"
	"narwharf/signing/access"
)

// openCache opens the cache in data_dir. own is the machine's own store, nil if it is
// not served; signer is nil where nothing is.
func openCache(d *dataDir, own *local.Store, signer *signed.Signer) (*cache.Stored, error) {
	return cache.Open(cache.OpenOptions{
		DataDir: d.cfg.DataDir, State: d.state, Local: own, Signer: signer, Log: d.log,
		Rules: upload.Options{
			StoreDir:        d.cfg.Cache.StoreDir,
			AllowIncomplete: d.cfg.Cache.AllowIncomplete,
			MaxNarSize:      int64(d.cfg.Cache.MaxNarSize),
			NarGrace:        time.Duration(d.cfg.Cache.NarGrace),
		},
	})
}

// openChannels opens the channels. publicKeys are those that the cache signs with.
func openChannels(d *dataDir, c *cache.Stored, auth *access.Authenticator, publicKeys func() []signing.PublicKey, metrics prometheus.Registerer) (*hooks.Server, error) {
	return hooks.New(hooks.Options{
		State: d.state, Cache: c.Channels, Files: cache.ChannelFiles{Store: c.Files}, Access: auth, Tokens: d.tokens, Audit: audit.Limits{Keep: time.Duration(d.cfg.Audit.Keep), MaxSize: int64(d.cfg.Audit.MaxSize)},
		Bootstrap: bootstrapMaker(d.cfg, publicKeys), Log: d.log, Metrics: metrics,
	})
}
