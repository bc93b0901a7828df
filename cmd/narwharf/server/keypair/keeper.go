package keypair

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	lookEvery = 5 * time.Second
	endsSoon  = 7 * 24 * time.Hour // renewed certificates have more than that left
)

// Keeper keeps a server's certificate. A nil one is that of a server without TLS.
type Keeper struct {
	*Source
	log *slog.Logger
}

// Alarm tells people.
type Alarm func(ctx context.Context, text string) error

// Keep opens the files, as Open does. Without files there is no TLS.
func Keep(files Files, check func(key string) error, log *slog.Logger) (*Keeper, error) {
	if files == (Files{}) {
		return nil, nil
	}
	source, err := Open(files, check)
	if err != nil {
		return nil, err
	}
	return &Keeper{Source: source, log: log}, nil
}

// Register shows when the certificate ends.
func (k *Keeper) Register(registry prometheus.Registerer) {
	if k != nil {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "narwharf_tls_certificate_ends_seconds", Help: "Unix time at which the certificate in use ends.",
		}, func() float64 { return float64(k.Ends().Unix()) }))
	}
}

// Serve answers on a listener, by TLS where that is TCP.
func (k *Keeper) Serve(srv *http.Server, l net.Listener) error {
	if k == nil || l.Addr().Network() != "tcp" {
		return srv.Serve(l)
	}
	return srv.ServeTLS(l, "", "")
}

// Prepare makes srv one for Serve. What one connection of HTTP/2 may hold is bounded here;
// cache/limits counts its requests.
func (k *Keeper) Prepare(srv *http.Server) {
	if k == nil {
		return
	}
	srv.TLSConfig = k.Config()
	srv.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: 128,
		// Of a body that is read slowly. More than net/http's mebibyte, with which an upload over a
		// line of 50 ms would be at 20 MB/s.
		MaxReceiveBufferPerConnection: 4<<20 - 1, MaxReceiveBufferPerStream: 4<<20 - 1,
		WriteByteTimeout: 2 * time.Minute,
	}
}

// Tend looks at the files until ctx ends, and tells people by alarm.
func (k *Keeper) Tend(ctx context.Context, alarm Alarm) {
	if k == nil {
		return
	}
	var watch sync.WaitGroup
	defer watch.Wait()
	k.sayEnd(ctx, alarm)
	watch.Go(func() { k.Watch(ctx, lookEvery, func(err error) { k.tell(ctx, alarm, err) }) })
	daily := time.NewTicker(24 * time.Hour)
	defer daily.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-daily.C:
			k.sayEnd(ctx, alarm)
		}
	}
}

// Reread looks at files that may have other names; err is why these are not known.
func (k *Keeper) Reread(ctx context.Context, files Files, err error, alarm Alarm) {
	if k == nil {
		return
	}
	changed := false
	if err == nil {
		changed, err = k.Reload(files)
	}
	if changed || err != nil {
		k.tell(ctx, alarm, err)
	}
}

// tell says what became of a change.
func (k *Keeper) tell(ctx context.Context, alarm Alarm, err error) {
	if err != nil {
		k.raise(ctx, alarm, fmt.Sprintf("the old certificate stays in use: %v", err))
		return
	}
	k.log.Info("another certificate is in use", "ends", k.Ends().UTC(), "names", k.Names())
	k.sayEnd(ctx, alarm)
}

// sayEnd raises an alarm about a certificate that nobody renews.
func (k *Keeper) sayEnd(ctx context.Context, alarm Alarm) {
	if ends := k.Ends(); time.Until(ends) < endsSoon {
		word := "ends"
		if time.Now().After(ends) {
			word = "ended"
		}
		k.raise(ctx, alarm, fmt.Sprintf("the certificate in use %s on %s", word, ends.UTC().Format(time.DateTime)))
	}
}

func (k *Keeper) raise(ctx context.Context, alarm Alarm, text string) {
	k.log.Error("tls: "+text, "error", alarm(ctx, text))
}
