package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/signed"
	"narwharf/cache/state/admin"
	"narwharf/cmd/narwharf/server/issuers"
	"narwharf/cmd/narwharf/server/keypair"
	"narwharf/cmd/narwharf/server/systemd"
	"narwharf/hooks/notify"
	"narwharf/hooks/serverconfig"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
	"narwharf/signing/access/session"
	"narwharf/signing/browser"
)

// Serve serves what the configuration describes until ctx ends, and then lets uploads
// end. The log and what a newcomer can type next go to its two last arguments.
func Serve(ctx context.Context, cfg *serverconfig.Config, version string, log *slog.Logger, out io.Writer) (err error) {
	hangup := make(chan os.Signal, 1) // from the first moment on: SIGHUP would end us
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	first, err := openFirst(cfg, log)
	if err != nil {
		return err
	}
	defer first.close()
	d, err := Open(cfg, version, log)
	if err != nil {
		return alreadyServed(cfg, err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	sayWhatIsMissing(cfg, first.keys, log)
	d.keypair, d.Notified = first.certificate, first.targets
	registry := prometheus.NewRegistry()
	d.keypair.Register(registry)
	d.metrics = registry
	d.issuers = issuers.Open(cfg, log, registry, d.tell)
	defer d.issuers.Close()
	from, err := d.openSources(registry, func(err error) error { return err })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	s := &service{DataDir: d, listeners: first.listeners, auth: d.authenticator()}
	if s.signer, err = signed.New(cfg.ReloadSigners, cfg.Signing.SignUploads, from.own, from.ups.Keys()...); err != nil {
		return err
	}
	if d.cache, err = d.OpenCache(from.own, from.ups, s.signer); err != nil {
		return err
	}
	defer d.cache.Close()
	if err := s.open(ctx, registry); err != nil {
		return err
	}
	socket, err := d.ServeAdmin()
	if err != nil {
		return err
	}
	defer socket.Close()
	return s.run(ctx, hangup, out)
}

// first is what may need root, and so comes before data_dir: keys, and ports below 1024.
type first struct {
	keys        int // how many the cache signs with
	targets     []notify.Target
	certificate *keypair.Keeper // nil: no TLS
	listeners   []net.Listener
}

func openFirst(cfg *serverconfig.Config, log *slog.Logger) (*first, error) {
	keys, err := cfg.LoadSigners()
	if err != nil {
		return nil, err
	}
	f := &first{keys: len(keys)}
	if f.targets, err = cfg.NotifyTargets(); err != nil {
		return nil, err
	}
	if f.certificate, err = keypair.Keep(keypair.Files(cfg.TLS), cfg.CheckTLSKey, cfg.CertificateRules(), log); err != nil {
		return nil, err
	}
	inherited, err := systemd.Listeners()
	if err != nil {
		return nil, err
	}
	if f.listeners, err = cfg.OpenListeners(inherited, log); err != nil {
		return nil, alreadyServed(cfg, err)
	}
	return f, nil
}

func (f *first) close() {
	for _, l := range f.listeners {
		l.Close()
	}
}

// authenticator knows who a request comes from.
func (d *DataDir) authenticator() *access.Authenticator {
	return access.NewAuthenticator(access.Options{
		Tokens: d.Tokens, Short: session.New(d.Short, d.Tokens), JWT: d.issuers, Certificate: d.keypair.Client, Session: d.cookies().Secret,
		Anonymous: d.Config.AnonymousScopes(), Guards: []access.Guard{browser.Guard(d.Config.URL(), d.Config.Access.Hosts)},
	})
}

// sayWhatIsMissing notes what works less well by the configuration than people may expect.
func sayWhatIsMissing(cfg *serverconfig.Config, keys int, log *slog.Logger) {
	if keys == 0 {
		log.Warn("no signing key: clients can use only what was signed before it was uploaded (make one with narwharf key generate)")
	}
	if !cfg.AnonymousScopes().Allows(scope.Scope{Kind: scope.Metrics}) {
		log.Info("/metrics needs a token with the scope metrics: narwharf token new --name prometheus --scope metrics --out FILE, and in prometheus.yml authorization: {credentials_file: FILE}; or anonymous = [\"pull\", \"metrics\"] in [access]")
	}
}

// alreadyServed replaces err by the reason for it, if that is another
// narwharf on the same data_dir.
func alreadyServed(cfg *serverconfig.Config, err error) error {
	conn, dialErr := admin.Dial(cfg.DataDir)
	if dialErr != nil {
		return err
	}
	conn.Close()
	return fmt.Errorf("another narwharf serves %s already", cfg.DataDir)
}
