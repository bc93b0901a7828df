package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache"
	"narwharf/cache/fastpath"
	"narwharf/cache/limits"
	"narwharf/cache/signed"
	"narwharf/cache/state/admin"
	"narwharf/cmd/narwharf/server/collector"
	"narwharf/cmd/narwharf/server/greeting"
	"narwharf/cmd/narwharf/server/issuers"
	"narwharf/cmd/narwharf/server/keypair"
	"narwharf/cmd/narwharf/server/machines"
	"narwharf/cmd/narwharf/server/shutdown"
	"narwharf/cmd/narwharf/server/systemd"
	"narwharf/hooks/dashboard"
	"narwharf/hooks/reply"
	"narwharf/hooks/serverconfig"
	"narwharf/signing"
	"narwharf/signing/access"
	"narwharf/signing/access/oidc"
	"narwharf/signing/access/scope"
	"narwharf/signing/access/session"
	"narwharf/signing/browser"
)

// idleTimeout is longer than the 118 s for which curl keeps a connection to
// use it again: a PUT must not meet a connection that is just being closed.
const idleTimeout = 5 * time.Minute

// headerTimeout is how long the head of a request may take.
const headerTimeout = 20 * time.Second

// Serve serves what the configuration describes until ctx ends, and then lets uploads
// end. The log and what a newcomer can type next go to its two last arguments.
func Serve(ctx context.Context, cfg *serverconfig.Config, version string, log *slog.Logger, out io.Writer) (err error) {
	hangup := make(chan os.Signal, 1) // from the first moment on: SIGHUP would end us
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	// What may need root comes first: keys, and ports below 1024.
	keys, err := cfg.LoadSigners()
	if err != nil {
		return err
	}
	targets, err := cfg.NotifyTargets()
	if err != nil {
		return err
	}
	certificate, err := keypair.Keep(keypair.Files(cfg.TLS), cfg.CheckTLSKey, cfg.CertificateRules(), log)
	if err != nil {
		return err
	}
	inherited, err := systemd.Listeners()
	if err != nil {
		return err
	}
	listeners, err := cfg.OpenListeners(inherited, log)
	if err != nil {
		return alreadyServed(cfg, err)
	}
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	d, err := Open(cfg, version, log)
	if err != nil {
		return alreadyServed(cfg, err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	sayWhatIsMissing(cfg, len(keys), log)
	d.keypair, d.Notified = certificate, targets
	registry := prometheus.NewRegistry()
	certificate.Register(registry)
	d.issuers = issuers.Open(cfg, log, registry, d.tell)
	defer d.issuers.Close()
	auth := access.NewAuthenticator(access.Options{
		Tokens: d.Tokens, Short: session.New(d.Short, d.Tokens), JWT: d.issuers, Certificate: certificate.Client, Session: d.cookies().Secret,
		Anonymous: cfg.AnonymousScopes(), Guards: []access.Guard{browser.Guard(cfg.URL(), cfg.Access.Hosts)},
	})
	from, err := d.openSources(registry, func(err error) error { return err })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	signer, err := signed.New(cfg.ReloadSigners, cfg.Signing.SignUploads, from.own, from.ups.Keys()...)
	if err != nil {
		return err
	}
	if d.cache, err = d.OpenCache(from.own, from.ups, signer); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.cache.Close()) }()
	if err := d.cache.Recover(); err != nil {
		return err
	}
	server := cache.NewServer(cache.Options{
		Priority: cfg.Cache.Priority, PublicURL: cfg.URL(), Cache: d.cache,
		RequireUploadSig: cfg.UploadKeys(), Access: auth, Metrics: registry,
		Refused: func(who *access.Principal, route string, denied *access.Denied) {
			d.channels.Refused(who, route, denied)
		},
		BodyIdle: time.Duration(cfg.Limits.BodyIdle), Uploads: cfg.Limits.Uploads, Version: version, Log: log,
	})
	d.collector = collector.New(d.cache, func() collector.Roots { return d.channels.Retain })
	registry.MustRegister(collector.Metrics{Collector: d.collector})
	if d.checks, err = cfg.CheckSet(); err != nil {
		return err
	}
	if d.channels, err = d.OpenChannels(d.cache, auth, func() []signing.PublicKey { return slices.Concat(signer.PublicKeys(), signer.Others()) }, registry); err != nil {
		return err
	}
	if d.hostKeys, err = machines.KeepKeys(ctx, cfg, d.channels.Identities, log); err != nil {
		return err
	}
	d.scrubber = newScrubber(d.cache, d.State, time.Duration(cfg.Cache.ScrubInterval), d.damaged, log)
	d.scrubber.Register(registry)
	socket, err := d.ServeAdmin()
	if err != nil {
		return err
	}
	defer socket.Close()
	return d.answer(ctx, server, d.page(auth, d.issuers), signer, auth, listeners, hangup, out)
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

// gate counts connections by the configuration.
func (d *DataDir) gate() *limits.Gate {
	l := d.Config.Limits
	total := cmp.Or(l.Connections, limits.FromFiles())
	return limits.NewGate(limits.Options{
		Total: total, PerAddress: cmp.Or(l.ConnectionsPerAddress, max(total/8, min(total, 32))), PerCredential: cmp.Or(l.ConnectionsPerToken, max(total*3/4, 1)),
		Trusted: d.Config.Proxies(), Log: d.log,
	})
}

// tokenOf is the id of the token of a request, "" if it has none that is good.
func tokenOf(auth *access.Authenticator) func(*http.Request) string {
	return func(req *http.Request) string {
		if p := auth.Identify(req); p.Credential == access.Valid {
			return p.TokenID
		}
		return ""
	}
}

// answer answers until ctx ends, and then lets uploads end.
func (d *DataDir) answer(ctx context.Context, server *cache.Server, page http.Handler, signer *signed.Signer, auth *access.Authenticator, listeners []net.Listener, hangup <-chan os.Signal, out io.Writer) error {
	gate := d.gate()
	tls := keypair.Around{Alarm: d.channels.Alarms.Of("server.tls"), End: gate.EndShown}
	srv := &http.Server{
		Handler:           panics(d.log, oidc.Once(gate.Requests(tokenOf(auth), Web(d.Config.URL(), page, d.channels, server)))),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    64 << 10,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return fastpath.ConnContext(gate.ConnContext(ctx, c), c)
		},
		ConnState: func(c net.Conn, state http.ConnState) {
			gate.ConnState(c, state)
			fastpath.ConnState(c, state)
		},
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}
	d.keypair.Prepare(srv)
	failed := make(chan error, len(listeners)+1)
	for _, l := range listeners {
		d.log.Info("serving", "address", l.Addr().String(), "data_dir", d.Config.DataDir)
		l = gate.Listener(l)
		if d.Config.Limits.FastPath && d.keypair == nil && l.Addr().Network() == "tcp" {
			l = server.FastPath(l, idleTimeout, headerTimeout)
		}
		go func() { failed <- d.keypair.Serve(srv, l) }()
	}
	if d.Config.Limits.FastPath { // else polls wait in net/http
		go func() { failed <- srv.Serve(d.channels.Returned(idleTimeout)) }()
	}
	greeting.Print(out, d.Config, listeners, d.keypair.Names(), slices.Concat(signer.PublicKeys(), signer.Others()))
	systemd.Notify("READY=1")

	for _, kind := range []string{"server.keys", "server.hostkeys"} { // else it would not have started
		if err := d.channels.Alarms.Of(kind)(ctx, ""); err != nil {
			d.log.Error("the end of an alarm was not noted", "kind", kind, "error", err)
		}
	}
	background, stop := context.WithCancel(context.Background())
	var tending sync.WaitGroup
	defer tending.Wait()
	defer stop()
	tending.Go(func() { systemd.Tend(background, server.UploadsInFlight, d.alive) })
	tending.Go(func() { d.cache.Uploads.SweepUntil(background) })
	tending.Go(func() { d.Short.SweepUntil(background, d.log) })
	tending.Go(func() { d.cache.Adopter.Run(background) })
	tending.Go(func() { d.cache.Check(background) })
	tending.Go(func() { d.cache.TendUpstreams(background, d.channels.Fleet.Needs, d.channels.Fleet.Lost) })
	tending.Go(func() { d.channels.Tend(background) })
	tending.Go(func() { d.keypair.Tend(background, tls) })
	tending.Go(func() { d.hostKeys.Tend(background, d.channels.Alarms.Of("server.hostkeys")) })
	tending.Go(func() { d.channels.Identities.SweepUntil(background) })
	tending.Go(func() { d.channels.Retain.TendHosts(background, d.channels.Fleet.Gone) })
	tending.Go(func() { d.scrubber.Run(background) })
	tending.Go(func() { d.collector.Run(background) })
	tending.Go(func() { d.channels.Retain.Tend(background, d.collector, time.Duration(d.Config.Retention.Interval)) })
	for {
		select {
		case <-hangup:
			systemd.Reload(func() { d.reload(ctx, signer, tls) })
		case err := <-failed:
			return fmt.Errorf("serve: %w", err)
		case <-ctx.Done():
			d.channels.Stop()
			return shutdown.Wait(srv, server, time.Duration(d.Config.Limits.Stop), d.log)
		}
	}
}

// reload is what SIGHUP does.
func (d *DataDir) reload(ctx context.Context, signer *signed.Signer, tls keypair.Around) {
	said, text := signer.Reload(), ""
	if said != nil {
		text = fmt.Sprintf("SIGHUP: the old signing keys stay in use: %v", said)
	} else {
		d.log.Info("SIGHUP: read the secret keys again", "keys", len(signer.PublicKeys()))
	}
	if err := errors.Join(said, d.channels.Alarms.Of("server.keys")(ctx, text)); err != nil {
		d.log.Error("SIGHUP: the old keys stay in use", "error", err)
	}
	if checks, err := d.Config.ReloadChecks(); err != nil {
		d.log.Error("SIGHUP: the old checks stay in use", "error", err)
	} else {
		d.checks.Replace(checks)
	}
	files, rules, err := d.Config.ReloadTLS()
	d.keypair.Reread(ctx, keypair.Files(files), rules, err, tls)
	d.hostKeys.Reread(ctx, d.channels.Alarms.Of("server.hostkeys"))
}

// Web sends what is for people to page, the API to channels and everything else to the cache. A proxy may
// have left the path of public_url on the request or taken it off.
func Web(publicURL *url.URL, page, channels, cache http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		path := req.URL.Path
		if publicURL != nil && publicURL.Path != "" {
			if rest, ok := strings.CutPrefix(path, publicURL.Path); ok && strings.HasPrefix(rest, "/") {
				path = rest
			}
		}
		to := channels
		switch {
		case strings.HasPrefix(path, "/api/"), strings.HasPrefix(path, reply.FleetLock):
		case path == "/ui" || strings.HasPrefix(path, dashboard.Path):
			to = page
		default:
			cache.ServeHTTP(w, req)
			return
		}
		req.URL.Path, req.URL.RawPath = path, ""
		to.ServeHTTP(w, req)
	})
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
