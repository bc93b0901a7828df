// Package server puts a server together: an open data_dir with the cache and the
// channels in it, what it serves, and the jobs that commands run in it, or on a
// data_dir that no server has open.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/blob"
	"narwharf/cache/copies/backup"
	"narwharf/cache/index"
	"narwharf/cache/local"
	"narwharf/cache/replica"
	"narwharf/cache/signed"
	"narwharf/cache/state"
	"narwharf/cache/state/durable"
	"narwharf/cache/stored"
	"narwharf/cache/upload"
	"narwharf/cache/upload/scrub"
	"narwharf/cache/upstream"
	"narwharf/cmd/narwharf/server/collector"
	"narwharf/cmd/narwharf/server/firstboot"
	"narwharf/cmd/narwharf/server/keypair"
	"narwharf/cmd/narwharf/server/machines"
	"narwharf/cmd/narwharf/server/place"
	"narwharf/cmd/narwharf/server/storage"
	"narwharf/cmd/narwharf/server/token"
	"narwharf/cmd/narwharf/server/uploads"
	"narwharf/hooks"
	"narwharf/hooks/audit"
	"narwharf/hooks/notify"
	"narwharf/hooks/rollout/check"
	"narwharf/hooks/serverconfig"
	"narwharf/signing"
	"narwharf/signing/access"
	"narwharf/signing/access/oidc"
	"narwharf/signing/access/shortlived"
)

const (
	schema       = "1" // the version of data_dir as a whole
	schemaBucket = "narwharf"
	schemaKey    = "schema"
)

// DataDir is an open data_dir. One process at a time has it.
type DataDir struct {
	Config *serverconfig.Config
	State  state.Store
	Tokens *access.Tokens
	Short  *shortlived.Store

	version string
	log     *slog.Logger
	content blob.Store            // nil before OpenCache
	metrics prometheus.Registerer // nil where nothing is served
	// What a server has open of it; nil elsewhere, where a job opens it.
	cache     *stored.Cache
	channels  *hooks.Server
	scrubber  *scrub.Scrubber
	issuers   *oidc.Issuers
	hostKeys  *machines.Keys
	collector *collector.Collector
	keypair   *keypair.Keeper // nil: no TLS
	shared    *replica.Cache  // nil where no other server has the state
	Notified  []notify.Target // who is told what happens
	checks    *check.Set
	uploads   uploads.Book
}

// Open opens data_dir, making it if it is empty or absent. It waits a little for a
// process that is just leaving. The version is that of this program.
func Open(cfg *serverconfig.Config, version string, log *slog.Logger) (_ *DataDir, err error) {
	defer func() {
		if r := recover(); r != nil { // how bbolt says that pages are not what they should be
			err = fmt.Errorf("%s is %w: %v", filepath.Join(cfg.DataDir, "narwharf.db"), state.ErrDamaged, r)
		}
		err = place.Explain(cfg, err)
	}()
	if err := place.Check(cfg); err != nil {
		return nil, err
	}
	if backup.Unfinished(cfg.DataDir) {
		return nil, fmt.Errorf("data_dir %s was not restored to its end: run narwharf restore again", cfg.DataDir)
	}
	if cfg.Private() {
		syscall.Umask(syscall.Umask(0o027) | 0o027)
	}
	if err := os.MkdirAll(cfg.DataDir, 0o755); err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	place.Note(cfg)
	if err := place.BecomeOwner(cfg.DataDir); err != nil {
		return nil, err
	}
	if cfg.Private() {
		place.ShutOut(cfg, log)
	}
	if err := durable.Sweep(cfg.DataDir, time.Hour); err != nil {
		return nil, err
	}
	st, err := storage.OpenState(context.Background(), cfg, log)
	if err != nil {
		return nil, err
	}
	d := &DataDir{Config: cfg, State: st, version: version, log: log}
	var restored int
	if err = state.CheckVersion(st, schemaBucket, schemaKey, schema); err == nil {
		d.Tokens, restored, err = access.Open(context.Background(), st, copyOfTokens(cfg))
	}
	if err == nil {
		d.Short, err = shortlived.Open(st, log)
	}
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	if restored > 0 {
		log.Info("the database lacked tokens, they are back from their file", "tokens", restored)
	}
	return d, nil
}

// copyOfTokens is the file with a copy of the tokens; "" where servers share the state, of which each
// would know a part.
func copyOfTokens(cfg *serverconfig.Config) string {
	if cfg.Storage.Shared() {
		return ""
	}
	return filepath.Join(cfg.DataDir, "tokens")
}

func (d *DataDir) tokens() token.Store {
	return token.Store{State: d.State, Tokens: d.Tokens, Short: d.Short, Log: d.log}
}

// Close leaves data_dir in order.
func (d *DataDir) Close() error {
	if c, ok := d.content.(interface{ Close() }); ok {
		c.Close()
	}
	return d.State.Close()
}

// alive has an error where the state does not answer, and does not return while it hangs.
func (d *DataDir) alive() error {
	return d.State.View(context.Background(), func(state.Reader) error { return nil })
}

// OpenCache opens the cache. own is the machine's own store, nil if it is not served; ups are
// the caches behind it, nil if there are none; signer is nil where nothing is served.
func (d *DataDir) OpenCache(own *local.Store, ups *upstream.Upstreams, signer *signed.Signer) (*stored.Cache, error) {
	files, err := storage.OpenContent(d.Config, d.log, d.metrics)
	d.content = files
	if err == nil && (d.Config.Storage.Shared() || d.Config.Storage.Bucket() != nil) {
		err = storage.Pair(context.Background(), d.State, files)
	}
	if err != nil {
		return nil, err
	}
	c, err := stored.Open(stored.Options{
		Index: index.Options{Lease: time.Duration(d.Config.Retention.Lease), Shared: d.Config.Storage.Shared()}, Retention: collector.Policy(&d.Config.Retention),
		Files: files, State: d.State, Alone: d.lease("collect"), Local: own, Upstreams: ups, Signer: signer, Log: d.log,
		Rules: upload.Options{
			StoreDir:        d.Config.Cache.StoreDir,
			AllowIncomplete: d.Config.Cache.AllowIncomplete,
			MaxNarSize:      int64(d.Config.Cache.MaxNarSize),
			NarGrace:        time.Duration(d.Config.Cache.NarGrace),
			Shared:          d.Config.Storage.Shared(),
		},
	})
	if err == nil && d.Config.Storage.Shared() {
		d.share(c, signer)
	}
	return c, err
}

// OpenChannels opens the channels. publicKeys are those that the cache signs with.
func (d *DataDir) OpenChannels(c *stored.Cache, auth *access.Authenticator, publicKeys func() []signing.PublicKey, metrics prometheus.Registerer) (*hooks.Server, error) {
	replica, err := d.asReplica(publicKeys)
	if err != nil {
		return nil, err
	}
	return hooks.New(hooks.Options{
		State: d.State, Cache: c, Files: stored.ChannelFiles{Store: c.Uploads.Files}, Access: auth, Tokens: d.Tokens, Short: d.Short, JWT: d.judge(),
		Identity: machines.Options(d.Config, d.issuers, nil),
		Notify:   d.Notified, PublicURL: d.Config.PublicURL, Version: d.version,
		Audit:     audit.Limits{Keep: time.Duration(d.Config.Audit.Keep), MaxSize: int64(d.Config.Audit.MaxSize)},
		Issuers:   d.logins(),
		Bootstrap: firstboot.Maker(d.Config, d.version, publicKeys), Log: d.log, Metrics: metrics, HostMetrics: d.Config.Metrics.Hosts,
		BodyIdle: time.Duration(d.Config.Limits.BodyIdle), HostsPerCredential: d.Config.Limits.HostsPerCredential,
		Checks: d.checks, RebootGroups: d.Config.FleetLock.Groups,
		Name: d.Config.Name(), Replicas: d.Config.Storage.Shared(), Lease: d.lease, Replica: replica, Clock: storage.Clock(d.State), Collector: d.collector, KeepReleases: d.Config.Retention.KeepReleases, ForgetHosts: time.Duration(d.Config.Retention.ForgetHosts),
	})
}

// damaged is the alarm of a finding of the scrub.
func (d *DataDir) damaged(ctx context.Context, f scrub.Finding) error {
	return d.channels.Fleet.Damaged(ctx, f.Path, f.File, f.Text, f.Mended)
}
