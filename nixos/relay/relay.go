// Package relay is what Nix on a host downloads through. A cache or a network in hostile
// hands can then neither fill the disk nor slip in a path: Nix is shown exactly the narinfos that
// are lines of the closure manifest, and NARs plain and cut at the size that the manifest says.
// It asks the configured caches and no other host (but see Options.Hosts), and each cache's
// token goes to that cache alone. What breaks off is resumed.
//
// It listens on 127.0.0.1, below a secret that only Nix is told.
package relay

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"narwharf/narinfo"
	"narwharf/signing"
)

// Options say what may be downloaded, and from where.
type Options struct {
	StoreDir string
	Lines    []signing.Line // all that Nix is shown
	Caches   []Cache        // tried in turn
	// Hosts are where a cache may send us for a NAR, without credentials: "host", "host:port",
	// or addresses ("10.0.0.0/8"), without which no private address is asked.
	Hosts     []string
	Transport *http.Transport // one of the relay's own
	Rate      int64           // bytes in a second of all downloads together; 0: no limit
}

// A Cache is where paths come from.
type Cache struct {
	URL         *url.URL // http, https or file, without a slash at its end
	User, Token string   // as Basic authentication has them; no Token if there is none
}

// ParseCache reads the URL of a cache, with a user and a password if it has them. Nix's own settings
// behind a question mark are dropped.
func ParseCache(text string) (c Cache, err error) {
	u, err := url.Parse(strings.TrimRight(text, "/"))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "file" || u.Host == "" && u.Scheme != "file" {
		return c, errors.New("not a URL like https://cache.example.org or file:///srv/cache")
	}
	c.User = "narwharf"
	if u.User != nil {
		c.User = u.User.Username()
		c.Token, _ = u.User.Password()
	}
	c.URL = &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}
	return c, nil
}

// A Relay serves one download of a closure.
type Relay struct {
	// URL is what Nix is told. It holds the secret: it must not be in an argv or a log.
	URL string

	Options
	prefix  string
	lines   map[string]signing.Line // by the hash of the path
	outside *outside
	server  *http.Server

	patience time.Duration

	mu     sync.Mutex
	offers map[string]*offer
	next   time.Time // when the next byte may pass
	err    error     // why the last request came to nothing
}

// UserAgent is what caches and proxies are told.
const UserAgent = "narwharf relay"

// New begins to serve.
func New(o Options) (*Relay, error) {
	hosts, err := newOutside(o.Hosts, o.Transport)
	if err != nil {
		return nil, fmt.Errorf("download.hosts: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for Nix: %w", err)
	}
	o.Transport.MaxIdleConnsPerHost = 32 // Nix asks for 25 at once
	o.Transport.ProxyConnectHeader = http.Header{"User-Agent": {UserAgent}}
	o.Transport.RegisterProtocol("file", http.NewFileTransport(http.Dir("/")))
	secret := make([]byte, 16)
	_, _ = rand.Read(secret) // it does not fail
	r := &Relay{
		Options: o, prefix: "/" + hex.EncodeToString(secret), outside: hosts, next: time.Now(),
		lines: make(map[string]signing.Line), offers: make(map[string]*offer), patience: patience,
	}
	for _, l := range o.Lines {
		r.lines[l.Path.Hash()] = l
	}
	r.URL = "http://" + listener.Addr().String() + r.prefix
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	go r.server.Serve(listener) //nolint:errcheck // it ends because Close is called
	return r, nil
}

// Close ends all transfers.
func (r *Relay) Close() error {
	defer r.outside.direct.CloseIdleConnections()
	return r.server.Close()
}

// Why adds to Nix's words what Nix cannot know, and takes the secret out of them.
func (r *Relay) Why(err error) error {
	if err == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	text := strings.ReplaceAll(err.Error(), r.URL, r.Caches[0].URL.Redacted())
	if r.err != nil {
		return fmt.Errorf("%s (%w)", text, r.err)
	}
	return errors.New(text)
}

// failed remembers why a request comes to nothing.
func (r *Relay) failed(ctx context.Context, err error) {
	if ctx.Err() == nil {
		r.mu.Lock()
		r.err = err
		r.mu.Unlock()
	}
}

// ServeHTTP implements http.Handler.
func (r *Relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	prefix, name, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	switch {
	case subtle.ConstantTimeCompare([]byte("/"+prefix), []byte(r.prefix)) == 0:
		http.NotFound(w, req)
	case req.Method != http.MethodGet && req.Method != http.MethodHead:
		w.WriteHeader(http.StatusMethodNotAllowed)
	case name == "nix-cache-info":
		_, _ = fmt.Fprintf(w, "StoreDir: %s\nWantMassQuery: 1\nPriority: 1\n", r.StoreDir)
	case strings.HasSuffix(name, ".narinfo"):
		r.serveNarinfo(w, req, strings.TrimSuffix(name, ".narinfo"))
	case strings.HasPrefix(name, "nar/") && strings.HasSuffix(name, ".nar"):
		r.serveNar(w, req, name[len("nar/"):len(name)-len(".nar")])
	default:
		http.NotFound(w, req)
	}
}

func (r *Relay) serveNarinfo(w http.ResponseWriter, req *http.Request, hash string) {
	o := r.find(w, req, hash)
	if o == nil {
		return
	}
	// What the manifest binds, and what vouches for it: signatures, and the content address.
	i := narinfo.Info{
		StoreDir: r.StoreDir, Path: o.line.Path, URL: "nar/" + hash + ".nar", Compression: "none",
		NarHash: o.line.NarHash, NarSize: o.line.NarSize, References: o.line.References,
		Deriver: o.info.Deriver, CA: o.info.CA, Sigs: o.info.Sigs,
	}
	w.Header().Set("Content-Type", "text/x-nix-narinfo")
	_, _ = w.Write(i.Append(nil))
}

// find answers the request if there is nothing to be offered.
func (r *Relay) find(w http.ResponseWriter, req *http.Request, hash string) *offer {
	line, ok := r.lines[hash]
	if !ok {
		http.NotFound(w, req)
		return nil
	}
	o, err := r.offer(req.Context(), line)
	switch {
	case err == nil:
		return o
	case errors.Is(err, errRefused):
		r.failed(req.Context(), err)
		http.Error(w, err.Error(), http.StatusNotFound)
	default:
		r.failed(req.Context(), err)
		http.Error(w, err.Error(), http.StatusBadGateway)
	}
	return nil
}

// serveNar sends a NAR, or its end: Nix asks for what it lacks where a transfer broke off.
func (r *Relay) serveNar(w http.ResponseWriter, req *http.Request, hash string) {
	w.Header().Set("Accept-Ranges", "bytes") // else Nix does not try again
	o := r.find(w, req, hash)
	if o == nil {
		return
	}
	if why := r.givenUp(o, nil); why != nil {
		http.Error(w, why.Error(), http.StatusNotFound) // Nix would try again for long
		return
	}
	size := o.line.NarSize
	from, to, ok := parseRange(req.Header.Get("Range"), size)
	if !ok {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		return
	}
	head := func() {
		w.Header().Set("Content-Type", "application/x-nix-nar")
		w.Header().Set("Content-Length", strconv.FormatInt(to-from, 10))
		if to-from < size {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, size))
			w.WriteHeader(http.StatusPartialContent)
		}
	}
	if req.Method == http.MethodHead {
		head()
		return
	}
	n, err := r.send(req.Context(), &late{w, head}, o, from, to)
	if err == nil {
		return
	}
	if req.Context().Err() == nil {
		_ = r.givenUp(o, err)
	}
	r.failed(req.Context(), err)
	if n > 0 {
		panic(http.ErrAbortHandler) // all else would look whole
	}
	http.Error(w, err.Error(), http.StatusNotFound)
}

// late is an answer whose head waits for the first bytes of its body.
type late struct {
	w    io.Writer
	head func()
}

func (l *late) Write(p []byte) (int, error) {
	if l.head != nil {
		l.head()
		l.head = nil
	}
	return l.w.Write(p)
}

// givenUp is why a NAR is not sent any more, nil if it may be; a reason given becomes that.
func (r *Relay) givenUp(o *offer, why error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if why != nil {
		o.failed = why
	}
	return o.failed
}

// parseRange reads "bytes=N-" and "bytes=N-M"; all of it where the header is another.
func parseRange(header string, size int64) (from, to int64, ok bool) {
	spec, isRange := strings.CutPrefix(header, "bytes=")
	first, last, hasDash := strings.Cut(spec, "-")
	from, err := strconv.ParseInt(first, 10, 64)
	if !isRange || !hasDash || err != nil || strings.Contains(last, ",") {
		return 0, size, true
	}
	to = size
	if n, err := strconv.ParseInt(last, 10, 64); err == nil {
		to = min(n+1, size)
	}
	return from, to, from >= 0 && from < to
}

// pass waits until n bytes more may pass. All transfers share the rate.
func (r *Relay) pass(ctx context.Context, n int) error {
	r.mu.Lock()
	if now := time.Now(); r.next.Before(now) {
		r.next = now
	}
	r.next = r.next.Add(time.Duration(int64(n)) * time.Second / time.Duration(r.Rate))
	wait := time.Until(r.next)
	r.mu.Unlock()
	return sleep(ctx, wait)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
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
