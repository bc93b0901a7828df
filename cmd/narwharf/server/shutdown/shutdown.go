// Package shutdown ends a server so that uploads come to their end.
package shutdown

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"narwharf/cache"
	"narwharf/cmd/narwharf/server/systemd"
)

// Wait stops taking connections and waits: for uploads, since most
// clients cannot send a body twice, up to limit; for downloads, which clients
// resume, a few seconds longer than the uploads take.
func Wait(web *http.Server, server *cache.Server, limit time.Duration, log *slog.Logger) error {
	systemd.Notify("STOPPING=1", "STATUS=uploads come to their end")
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
