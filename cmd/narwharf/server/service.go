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
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache"
	"narwharf/cache/fastpath"
	"narwharf/cache/limits"
	"narwharf/cache/local/ahead"
	"narwharf/cache/signed"
	"narwharf/cmd/narwharf/server/collector"
	"narwharf/cmd/narwharf/server/edge"
	"narwharf/cmd/narwharf/server/greeting"
	"narwharf/cmd/narwharf/server/keypair"
	"narwharf/cmd/narwharf/server/machines"
	"narwharf/cmd/narwharf/server/shutdown"
	"narwharf/cmd/narwharf/server/storage"
	"narwharf/cmd/narwharf/server/systemd"
	"narwharf/hooks/series"
	"narwharf/hooks/site"
	"narwharf/signing"
	"narwharf/signing/access"
	"narwharf/signing/access/oidc"
)

// idleTimeout is longer than the 118 s for which curl keeps a connection to
// use it again: a PUT must not meet a connection that is just being closed.
const idleTimeout = 5 * time.Minute

// headerTimeout is how long the head of a request may take.
const headerTimeout = 20 * time.Second

// A service is an open data_dir that is served.
type service struct {
	*DataDir
	listeners []net.Listener
	auth      *access.Authenticator
	signer    *signed.Signer
	server    *cache.Server
	gate      *limits.Gate
	tls       keypair.Around
	past      *series.Recorder // of the numbers that the page shows
	follower  *site.Follower   // of a centre's channels; nil: of none
}

// open makes the cache agree with its files, and opens what answers requests.
func (s *service) open(ctx context.Context, registry *prometheus.Registry) (err error) {
	if err := s.cache.Recover(); err != nil {
		return err
	}
	cfg := s.Config
	s.server = cache.NewServer(cache.Options{
		Priority: cfg.Cache.Priority, PublicURL: cfg.URL(), Cache: s.cache,
		RequireUploadSig: cfg.UploadKeys(), Access: s.auth, Metrics: registry,
		Refused: func(who *access.Principal, route string, denied *access.Denied) {
			s.channels.Refused(who, route, denied)
		},
		BodyIdle: time.Duration(cfg.Limits.BodyIdle), Uploads: cfg.Limits.Uploads, Version: s.version, Log: s.log,
	})
	s.collector = collector.New(s.cache, func() collector.Roots { return s.channels.Retain })
	registry.MustRegister(collector.Metrics{Collector: s.collector})
	if s.checks, err = cfg.CheckSet(); err != nil {
		return err
	}
	if s.channels, err = s.OpenChannels(s.cache, s.auth, s.publicKeys, registry); err != nil {
		return err
	}
	if s.hostKeys, err = machines.KeepKeys(ctx, cfg, s.channels.Identities, s.log); err != nil {
		return err
	}
	s.scrubber = newScrubber(s.cache, s.State, time.Duration(cfg.Cache.ScrubInterval), s.damaged, s.log)
	s.scrubber.Register(registry)
	s.follower, err = edge.Follow(edge.Options{Config: cfg, Cache: s.cache, State: s.State, Alarm: s.channels.Alarms.Of("server.mirror"), Version: s.version, Log: s.log})
	if err != nil {
		return err
	}
	s.follower.Register(registry)
	s.past = series.New(s.State, series.FromMetrics(registry), s.log)
	return nil
}

// publicKeys are those that the cache signs with, and those of the caches behind it.
func (s *service) publicKeys() []signing.PublicKey {
	return slices.Concat(s.signer.PublicKeys(), s.signer.Others())
}

// newGate counts connections by the configuration.
func (s *service) newGate() *limits.Gate {
	l := s.Config.Limits
	total := cmp.Or(l.Connections, limits.FromFiles())
	return limits.NewGate(limits.Options{
		Total: total, PerAddress: cmp.Or(l.ConnectionsPerAddress, max(total/8, min(total, 32))), PerCredential: cmp.Or(l.ConnectionsPerToken, max(total*3/4, 1)),
		Trusted: s.Config.Proxies(), Log: s.log,
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

// run answers until ctx ends, and then lets uploads end.
func (s *service) run(ctx context.Context, hangup <-chan os.Signal, out io.Writer) error {
	s.gate = s.newGate()
	s.tls = keypair.Around{Alarm: s.channels.Alarms.Of("server.tls"), End: s.gate.EndShown}
	srv := s.http()
	failed := s.listen(srv)
	greeting.Print(out, s.Config, s.listeners, s.keypair.Names(), s.publicKeys())
	systemd.Notify("READY=1")
	for _, kind := range []string{"server.keys", "server.hostkeys"} { // else it would not have started
		if err := s.channels.Alarms.Of(kind)(ctx, ""); err != nil {
			s.log.Error("the end of an alarm was not noted", "kind", kind, "error", err)
		}
	}
	defer s.tend()()
	for {
		select {
		case <-hangup:
			systemd.Reload(func() { s.reload(ctx) })
		case err := <-failed:
			return fmt.Errorf("serve: %w", err)
		case <-ctx.Done():
			s.channels.Stop()
			return shutdown.Wait(srv, s.server, time.Duration(s.Config.Limits.Stop), s.log)
		}
	}
}

// http is the server of net/http, with everything around a request.
func (s *service) http() *http.Server {
	web := Web(s.Config.URL(), s.page(s.auth, s.issuers), s.channels, s.uploads.Around(s.server, s.auth))
	srv := &http.Server{
		Handler:           panics(s.log, oidc.Once(s.gate.Requests(tokenOf(s.auth), web))),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    64 << 10,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return fastpath.ConnContext(s.gate.ConnContext(ctx, c), c)
		},
		ConnState: func(c net.Conn, state http.ConnState) {
			s.gate.ConnState(c, state)
			fastpath.ConnState(c, state)
		},
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.keypair.Prepare(srv)
	return srv
}

// listen serves on all listeners; what comes from failed ended one of them.
func (s *service) listen(srv *http.Server) (failed <-chan error) {
	ended := make(chan error, len(s.listeners)+1)
	for _, l := range s.listeners {
		s.log.Info("serving", "address", l.Addr().String(), "data_dir", s.Config.DataDir)
		l = s.gate.Listener(l)
		if s.Config.Limits.FastPath && s.keypair == nil && l.Addr().Network() == "tcp" {
			l = s.server.FastPath(l, idleTimeout, headerTimeout)
		}
		go func() { ended <- s.keypair.Serve(srv, l) }()
	}
	if s.Config.Limits.FastPath { // else polls wait in net/http
		go func() { ended <- srv.Serve(s.channels.Returned(idleTimeout)) }()
	}
	return ended
}

// tend does what a server does beside answering; what it returns ends that, and waits for it.
func (s *service) tend() (end func()) {
	background, stop := context.WithCancel(context.Background())
	var tending sync.WaitGroup
	for _, job := range []func(context.Context){
		func(ctx context.Context) { systemd.Tend(ctx, s.server.UploadsInFlight, s.alive) },
		s.alone("sweep", s.cache.Uploads.SweepUntil),
		func(ctx context.Context) { s.Short.SweepUntil(ctx, s.log) },
		s.cache.Adopter.Run,
		s.alone("check", s.check),
		where(s.cache.Upstreams != nil, s.alone("upstreams", func(ctx context.Context) {
			s.cache.TendUpstreams(ctx, s.channels.Fleet.Needs, s.channels.Fleet.Lost)
		})),
		where(s.follower != nil, s.alone("mirror", s.follower.Run)),
		s.channels.Tend,
		where(s.Config.Storage.Bucket() != nil, s.alone("bucket", func(ctx context.Context) {
			storage.Tend(ctx, s.content, s.channels.Alarms.Of("server.bucket"), s.log)
		})),
		func(ctx context.Context) { s.keypair.Tend(ctx, s.tls) },
		func(ctx context.Context) { s.hostKeys.Tend(ctx, s.channels.Alarms.Of("server.hostkeys")) },
		s.channels.Identities.SweepUntil,
		func(ctx context.Context) { s.channels.Retain.TendHosts(ctx, s.channels.Fleet.Gone) },
		s.alone("scrub", s.scrubber.Run),
		s.past.Run, // each server adds what it counted
		func(ctx context.Context) { s.uploads.Run(ctx, s.State, s.log) },
		s.packAhead,
		s.collector.Run,
		func(ctx context.Context) {
			s.channels.Retain.Tend(ctx, s.collector, time.Duration(s.Config.Retention.Interval))
		},
	} {
		tending.Go(func() { job(background) })
	}
	return func() { stop(); tending.Wait() }
}

// where leaves out work that has nothing to do: it would take its lease again and again.
func where(there bool, work func(ctx context.Context)) func(ctx context.Context) {
	if !there {
		return func(context.Context) {}
	}
	return work
}

// packAhead packs what is built on this machine, where the configuration says so.
func (s *service) packAhead(ctx context.Context) {
	if s.Config.Cache.CompressAhead && s.cache.Local != nil {
		(&ahead.Packer{Store: s.cache.Local, Log: s.log}).Run(ctx)
	}
}

// reload is what SIGHUP does.
func (s *service) reload(ctx context.Context) {
	said, text := s.signer.Reload(), ""
	if said != nil {
		text = fmt.Sprintf("SIGHUP: the old signing keys stay in use: %v", said)
	} else {
		s.log.Info("SIGHUP: read the secret keys again", "keys", len(s.signer.PublicKeys()))
	}
	if err := errors.Join(said, s.channels.Alarms.Of("server.keys")(ctx, text)); err != nil {
		s.log.Error("SIGHUP: the old keys stay in use", "error", err)
	}
	if checks, err := s.Config.ReloadChecks(); err != nil {
		s.log.Error("SIGHUP: the old checks stay in use", "error", err)
	} else {
		s.checks.Replace(checks)
	}
	files, rules, err := s.Config.ReloadTLS()
	s.keypair.Reread(ctx, keypair.Files(files), rules, err, s.tls)
	s.hostKeys.Reread(ctx, s.channels.Alarms.Of("server.hostkeys"))
}
