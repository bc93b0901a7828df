package keypair

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/signing/access"
	"narwharf/signing/access/certificate"
	"narwharf/signing/access/rule"
)

const (
	lookEvery = 5 * time.Second
	endsSoon  = 7 * 24 * time.Hour // renewed certificates have more than that left
)

// Keeper keeps a server's certificate, and what those of clients give. A nil one is that of a server
// without TLS.
type Keeper struct {
	*Source
	clients *certificate.Rules
	log     *slog.Logger
	wrong   atomic.Bool // the last change was of no use
}

// Around is what a Keeper finds in its server.
type Around struct {
	// Alarm tells people what is wrong, and with an empty text that nothing is.
	Alarm func(ctx context.Context, text string) error
	// End closes the connections of clients whose certificate keep says no to, and says how many.
	End func(keep func(chain []*x509.Certificate) bool) int
}

// Keep opens the files, as Open does. Without files there is no TLS. The rules are those of clients'
// certificates.
func Keep(files Files, check func(key string) error, rules []*rule.Rule, log *slog.Logger) (*Keeper, error) {
	if files == (Files{}) {
		return nil, nil
	}
	source, err := Open(files, check)
	if err != nil {
		return nil, err
	}
	return &Keeper{Source: source, clients: certificate.New(rules, source.Authorities()), log: log}, nil
}

// Client is what the certificate of a request's client gives, false if it gives nothing.
func (k *Keeper) Client(req *http.Request) (access.Grant, bool) {
	if k == nil {
		return access.Grant{}, false
	}
	return k.clients.Grant(req.TLS)
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

// Tend looks at the files until ctx ends.
func (k *Keeper) Tend(ctx context.Context, around Around) {
	if k == nil {
		return
	}
	var watch sync.WaitGroup
	defer watch.Wait()
	k.sayEnd(ctx, around)
	watch.Go(func() { k.Watch(ctx, lookEvery, func(err error) { k.tell(ctx, around, err) }) })
	daily := time.NewTicker(24 * time.Hour)
	defer daily.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-daily.C:
			k.sayEnd(ctx, around)
		}
	}
}

// Reread looks at files that may have other names, and takes other rules, which hold in any case; err is
// why neither is known.
func (k *Keeper) Reread(ctx context.Context, files Files, rules []*rule.Rule, err error, around Around) {
	if k == nil {
		return
	}
	changed := false
	if err == nil {
		changed, err = k.Reload(files)
		k.judge(rules, around)
	}
	if changed || err != nil {
		k.tell(ctx, around, err)
	}
}

// judge has clients judged by other rules and authorities: whoever is under way with a certificate that
// gives something else now has to come again.
func (k *Keeper) judge(rules []*rule.Rule, around Around) {
	if n := around.End(k.clients.Replace(rules, k.Authorities())); n > 0 {
		k.log.Info("connections were closed, since what their certificates give has changed", "connections", n)
	}
}

// tell says what became of a change.
func (k *Keeper) tell(ctx context.Context, around Around, err error) {
	if k.wrong.Store(err != nil); err != nil {
		k.raise(ctx, around, fmt.Sprintf("the old certificate stays in use: %v", err))
		return
	}
	k.judge(k.clients.List(), around)
	k.log.Info("another certificate is in use", "ends", k.Ends().UTC(), "names", k.Names())
	k.sayEnd(ctx, around)
}

// sayEnd raises an alarm about a certificate that nobody renews, or ends it.
func (k *Keeper) sayEnd(ctx context.Context, around Around) {
	if ends := k.Ends(); time.Until(ends) < endsSoon {
		word := "ends"
		if time.Now().After(ends) {
			word = "ended"
		}
		k.raise(ctx, around, fmt.Sprintf("the certificate in use %s on %s", word, ends.UTC().Format(time.DateTime)))
	} else if !k.wrong.Load() {
		if err := around.Alarm(ctx, ""); err != nil {
			k.log.Error("tls: the end of an alarm was not noted", "error", err)
		}
	}
}

func (k *Keeper) raise(ctx context.Context, around Around, text string) {
	k.log.Error("tls: "+text, "error", around.Alarm(ctx, text))
}
