// Package relay stands between Nix and the caches while download.rate holds: Nix 2.8 has no
// limit of its own, that of 2.34 is of each transfer and begins with seconds at full speed,
// which is all that most paths take. It listens on this host alone, and adds no credentials:
// those come from Nix's netrc.
package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Relay hands on what caches answer, all transfers together at a rate.
type Relay struct {
	// URLs are what Nix is told instead of the caches'.
	URLs []string

	server *http.Server

	mu   sync.Mutex
	rate int64
	next time.Time // when the next byte may pass
	err  error     // why the last request came to nothing
}

// slice is how many bytes pass at once: a quarter of a second's, in reason.
func slice(rate int64) int { return int(min(max(rate/4, 512), 32<<10)) }

// New serves the caches that are given by an HTTP URL; others are
// Nix's own business.
func New(rate int64, through http.RoundTripper, caches []string) (*Relay, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("hold download.rate: %w", err)
	}
	t := &Relay{rate: rate, next: time.Now()}
	mux := http.NewServeMux()
	for i, cache := range caches {
		to, err := url.Parse(cache)
		if err != nil || (to.Scheme != "http" && to.Scheme != "https") {
			t.URLs = append(t.URLs, cache)
			continue
		}
		prefix := "/" + strconv.Itoa(i)
		mux.Handle(prefix+"/", http.StripPrefix(prefix, &httputil.ReverseProxy{
			Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(to) },
			Transport:      through,
			ModifyResponse: t.slow,
			ErrorHandler:   t.failed,
			FlushInterval:  -1,
			ErrorLog:       log.New(io.Discard, "", 0), // connections that Nix ends
		}))
		own := "http://" + listener.Addr().String() + prefix
		if to.RawQuery != "" { // settings of Nix's, as ?trusted=1
			own += "?" + to.RawQuery
			to.RawQuery = ""
		}
		t.URLs = append(t.URLs, own)
	}
	t.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	go t.server.Serve(listener) //nolint:errcheck // it ends because Close is called
	return t, nil
}

// Close ends all transfers.
func (t *Relay) Close() error { return t.server.Close() }

// Why adds to Nix's words what Nix cannot know.
func (t *Relay) Why(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil || t.err == nil {
		return err
	}
	return fmt.Errorf("%w (%w)", err, t.err)
}

func (t *Relay) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil {
		t.mu.Lock()
		t.err = err
		t.mu.Unlock()
	}
	w.WriteHeader(http.StatusBadGateway)
}

func (t *Relay) slow(resp *http.Response) error {
	// A path of the cache's is none of ours.
	if to, err := resp.Location(); err == nil {
		resp.Header.Set("Location", to.String())
	}
	resp.Body = &slowBody{ReadCloser: resp.Body, t: t, ctx: resp.Request.Context()}
	return nil
}

// pass waits until n bytes more may pass. All transfers share the rate.
func (t *Relay) pass(ctx context.Context, n int) error {
	t.mu.Lock()
	if now := time.Now(); t.next.Before(now) {
		t.next = now
	}
	t.next = t.next.Add(time.Duration(int64(n)) * time.Second / time.Duration(t.rate))
	wait := time.Until(t.next)
	t.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// slowBody hands bytes on when they may pass.
type slowBody struct {
	io.ReadCloser
	t   *Relay
	ctx context.Context
}

func (b *slowBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), slice(b.t.rate))])
	if err != nil && !errors.Is(err, io.EOF) && b.ctx.Err() == nil {
		b.t.mu.Lock()
		b.t.err = err
		b.t.mu.Unlock()
	}
	if n > 0 {
		if waited := b.t.pass(b.ctx, n); waited != nil {
			return 0, waited
		}
	}
	return n, err
}

// WithoutProxy are variables that keep Nix from asking a proxy for this very
// host.
func WithoutProxy(getenv func(string) string) []string {
	list := getenv("no_proxy")
	if list == "" {
		list = getenv("NO_PROXY")
	}
	if list = strings.Trim(list+",127.0.0.1", ","); strings.HasPrefix(list, "*") {
		list = "*"
	}
	return []string{"no_proxy=" + list, "NO_PROXY=" + list}
}
