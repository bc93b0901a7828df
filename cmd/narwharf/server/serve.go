package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"narwharf/cache"
	"narwharf/cache/fastpath"
	"narwharf/cache/local"
	"narwharf/cache/signed"
	"narwharf/cache/state/admin"
	"narwharf/hooks"
	"narwharf/hooks/serverconfig"
	"narwharf/signing"
	"narwharf/signing/access"
)

func serveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "run the cache",
		Long: `Serves the cache that the configuration describes until it gets SIGTERM or
SIGINT; then it lets uploads that are being received finish. A second signal
ends it at once. On SIGHUP it reads the secret keys again.

    narwharf serve --config ./data/config.toml`,
		Args: cobra.NoArgs,
	}
	config := configFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := serverconfig.Load(*config)
		if err != nil {
			return err
		}
		log, err := newLogger(cfg, os.Stderr)
		if err != nil {
			return err
		}
		return serve(c.Context(), cfg, log, c.OutOrStdout())
	}
	return c
}

// idleTimeout is longer than the 118 s for which curl keeps a connection to
// use it again: a PUT must not meet a connection that is just being closed.
const idleTimeout = 5 * time.Minute

// headerTimeout is how long the head of a request may take.
const headerTimeout = 20 * time.Second

func serve(ctx context.Context, cfg *serverconfig.Config, log *slog.Logger, out io.Writer) (err error) {
	hangup := make(chan os.Signal, 1) // from the first moment on: SIGHUP would end us
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	// What may need root comes first: keys, and ports below 1024.
	keys, err := cfg.LoadKeys()
	if err != nil {
		return err
	}
	listeners, err := cfg.OpenListeners()
	if err != nil {
		return alreadyServed(cfg, err)
	}
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	d, err := openDataDir(cfg, log)
	if err != nil {
		return alreadyServed(cfg, err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if len(keys) == 0 {
		log.Warn("no signing key: clients can use only what was signed before it was uploaded (make one with narwharf key generate)")
	}
	registry := prometheus.NewRegistry()
	auth := access.NewAuthenticator(d.tokens, cfg.AnonymousScopes(), time.Now)
	own, closeLocal, err := openLocal(cfg, registry, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeLocal()) }()
	signer, err := signed.New(cfg.ReloadKeys, cfg.Signing.SignUploads, own)
	if err != nil {
		return err
	}
	c, err := openCache(d, own, signer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.Recover(); err != nil {
		return err
	}
	server := cache.NewServer(cacheOptions(cfg, c, own, signer, auth, registry, log))
	channels, err := openChannels(d, c, auth, signer.PublicKeys, registry)
	if err != nil {
		return err
	}
	socket, err := serveAdmin(place{d, c, channels})
	if err != nil {
		return err
	}
	defer socket.Close()
	return (&running{cfg, log, c, signer, server, channels}).serve(ctx, listeners, hangup, out)
}

func cacheOptions(cfg *serverconfig.Config, c *cache.Stored, own *local.Store, signer *signed.Signer, auth *access.Authenticator, registry *prometheus.Registry, log *slog.Logger) cache.Options {
	return cache.Options{
		Priority:         cfg.Cache.Priority,
		PublicURL:        cfg.URL(),
		Uploads:          c.Uploads,
		Signer:           signer,
		Adopter:          c.Adopter,
		Local:            own,
		RequireUploadSig: cfg.UploadKeys(),
		Access:           auth,
		Metrics:          registry,
		BodyIdle:         time.Duration(cfg.Limits.BodyIdle),
		Version:          versionText(),
		Log:              log,
	}
}

// running is what a server serves.
type running struct {
	cfg      *serverconfig.Config
	log      *slog.Logger
	cache    *cache.Stored
	signer   *signed.Signer
	server   *cache.Server
	channels *hooks.Server
}

// serve answers until ctx ends, and then lets uploads end.
func (r *running) serve(ctx context.Context, listeners []net.Listener, hangup <-chan os.Signal, out io.Writer) error {
	srv := &http.Server{
		Handler:           web(r.cfg.URL(), r.channels, r.server),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    64 << 10,
		ConnContext:       fastpath.ConnContext,
		ConnState:         fastpath.ConnState,
		ErrorLog:          slog.NewLogLogger(r.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, len(listeners)+1)
	for _, l := range listeners {
		r.log.Info("serving", "address", l.Addr().String(), "data_dir", r.cfg.DataDir)
		if r.cfg.Limits.FastPath && l.Addr().Network() == "tcp" {
			l = r.server.FastPath(l, idleTimeout, headerTimeout)
		}
		go func() { failed <- srv.Serve(l) }()
	}
	if r.cfg.Limits.FastPath { // else polls wait in net/http
		go func() { failed <- srv.Serve(r.channels.Returned(idleTimeout)) }()
	}
	whatNext(out, r.cfg, listeners, r.signer.PublicKeys())
	notify("READY=1")

	background, stop := context.WithCancel(context.Background())
	var tending sync.WaitGroup
	defer tending.Wait()
	defer stop()
	tending.Go(func() { r.cache.Uploads.SweepUntil(background) })
	tending.Go(func() { r.cache.Adopter.Run(background) })
	tending.Go(func() { r.channels.Tend(background) })

	for {
		select {
		case <-hangup:
			if err := r.signer.Reload(); err != nil {
				r.log.Error("SIGHUP: the old keys stay in use", "error", err)
			} else {
				r.log.Info("SIGHUP: read the secret keys again", "keys", len(r.signer.PublicKeys()))
			}
		case err := <-failed:
			return fmt.Errorf("serve: %w", err)
		case <-ctx.Done():
			r.channels.Stop()
			return shutdown(srv, r.server, time.Duration(r.cfg.Limits.Stop), r.log)
		}
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

// shutdown stops taking connections and waits: for uploads, since most
// clients cannot send a body twice, up to limit; for downloads, which clients
// resume, a few seconds longer than the uploads take.
func shutdown(web *http.Server, server *cache.Server, limit time.Duration, log *slog.Logger) error {
	notify("STOPPING=1")
	second := make(chan os.Signal, 1)
	signal.Notify(second, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(second)
	log.Info("stopping", "uploads_in_flight", server.UploadsInFlight())
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		err := web.Shutdown(ctx)
		if err == nil {
			err = server.Sent(ctx)
		}
		done <- err
	}()
	idleSince := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if errors.Is(err, context.DeadlineExceeded) {
				log.Warn("cut what was still under way", "uploads_in_flight", server.UploadsInFlight())
				return web.Close()
			}
			return err
		case <-second:
			log.Warn("second signal: cut what was under way", "uploads_in_flight", server.UploadsInFlight())
			return web.Close()
		case now := <-tick.C:
			if server.UploadsInFlight() > 0 {
				idleSince = now
			} else if now.Sub(idleSince) > 10*time.Second {
				log.Info("cut downloads that were under way, clients resume them")
				return web.Close()
			}
		}
	}
}

// notify tells systemd, if it started us with Type=notify (sd_notify(3)).
func notify(state string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	if strings.HasPrefix(name, "@") {
		name = "\x00" + name[1:]
	}
	if conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"}); err == nil {
		_, _ = conn.Write([]byte(state)) // else systemd runs into its own time-out and says so
		_ = conn.Close()
	}
}

// whatNext prints what a newcomer can type now.
func whatNext(out io.Writer, cfg *serverconfig.Config, listeners []net.Listener, public []signing.PublicKey) {
	url := strings.TrimRight(cfg.PublicURL, "/")
	for _, l := range listeners {
		if a, ok := l.Addr().(*net.TCPAddr); ok && url == "" {
			host := a.IP.String()
			if a.IP.IsUnspecified() {
				host = "127.0.0.1"
			}
			url = "http://" + net.JoinHostPort(host, strconv.Itoa(a.Port))
		}
	}
	if url == "" {
		return
	}
	var keys strings.Builder
	for _, k := range public {
		keys.WriteString(" " + k.String())
	}
	auth, netrc := "", filepath.Join(cfg.DataDir, "netrc")
	if _, err := os.Stat(netrc); err == nil {
		auth = " --netrc-file " + netrc
	}
	from := ""
	if cfg.Cache.ServeStore {
		from = fmt.Sprintf("Whatever is valid in %s of this machine can be substituted.\n", cfg.Cache.StoreRoot+cfg.Cache.StoreDir)
	}
	_, _ = fmt.Fprintf(out, `
Narwharf serves %s
%s
See it:                   curl %s/nix-cache-info
Upload with any Nix:      nix copy%s --to '%s?compression=zstd' ./result
Substitute, in nix.conf:  extra-substituters = %s
                          extra-trusted-public-keys =%s

`, url, from, url, auth, url, url, keys.String()) // if that fails, nobody reads it
}
