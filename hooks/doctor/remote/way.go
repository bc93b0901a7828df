package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"narwharf/cache/probe"
	"narwharf/hooks/doctor"
)

const (
	// patience is how long an answer may take that a server makes at once.
	patience = 4 * time.Second
	// announced is the size of a body that is never sent.
	announced = 1 << 30
	// begun is how much of it is sent where something asks for it: behind a proxy a server reads 8 MiB before it
	// refuses, since some proxies cannot bear an early answer.
	begun int64 = 24 << 20
	// sending bounds how long that may take.
	sending = time.Minute
	// maxSkew is how far clocks may be apart: tokens and releases end by them.
	maxSkew = time.Minute
)

// Way looks at what stands between a client and the server.
func (c *Cache) Way(ctx context.Context, r *doctor.Report) {
	c.clock(ctx, r)
	c.kept(ctx, r)
	c.ranges(ctx, r)
	c.bodies(ctx, r)
}

func (c *Cache) clock(ctx context.Context, r *doctor.Report) {
	start := time.Now()
	a, err := c.get(ctx, "/healthz")
	if err != nil {
		return // somebody else says so
	}
	date, err := http.ParseTime(a.Header.Get("Date"))
	if err != nil {
		r.Note("clock", "%s says no time", c.URL)
		return
	}
	took := time.Since(start)
	// The header has whole seconds, and was made some time in between.
	skew := start.Add(took / 2).Sub(date).Truncate(time.Second)
	if skew.Abs() > maxSkew+took {
		r.Fault("clock", []string{"timedatectl", "systemctl restart systemd-timesyncd"},
			"the clock here is %s apart from the one of %s (%s here): tokens, certificates and releases end by them", skew.Abs(), c.URL.Host, start.UTC().Format(time.RFC3339))
		return
	}
	r.OK("clock", "the clocks agree")
}

// kept asks twice for a path that is not there, with two words: whoever answers the second time with the
// first word has kept the answer.
func (c *Cache) kept(ctx context.Context, r *doctor.Report) {
	hash := absent()
	first, err := c.get(ctx, "/"+hash+".narinfo", probe.Header, word())
	if err != nil || first.Status != http.StatusNotFound || first.Header.Get(probe.Header) == "" {
		r.Note("kept-404", "whether something in front keeps answers cannot be said: the server is older, or reading takes a token")
		return
	}
	second, err := c.get(ctx, "/"+hash+".narinfo", probe.Header, word())
	if err != nil {
		r.Note("kept-404", "%v", err)
		return
	}
	if second.Header.Get(probe.Header) == first.Header.Get(probe.Header) {
		r.Fault("kept-404", []string{"proxy_cache_valid 404 0;   # nginx: and no proxy_ignore_headers Cache-Control", "curl -sI " + c.URL.String() + "/" + hash + ".narinfo"},
			"something in front of %s keeps a 404%s: a path that is uploaded now stays missing for others, and Nix remembers that for an hour more. The server says no-cache: let the proxy obey it", c.URL.Host, evidence(second.Header))
		return
	}
	r.OK("kept-404", "nothing in front keeps a 404")
}

// absent is the hash part of a path that is nowhere.
func absent() string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("eout", r) {
			return '0'
		}
		return r
	}, (word() + word())[:32])
}

// evidence is what a cache says of itself.
func evidence(h http.Header) string {
	var said []string
	for _, name := range []string{"Via", "X-Cache", "X-Cache-Status", "Cf-Cache-Status", "Age", "Server"} {
		if v := h.Get(name); v != "" {
			said = append(said, name+": "+firstLine([]byte(v)))
		}
	}
	if len(said) == 0 {
		return ""
	}
	return " (" + strings.Join(said, ", ") + ")"
}

// ranges asks for the end of the path that every cache has.
func (c *Cache) ranges(ctx context.Context, r *doctor.Report) {
	a, err := c.get(ctx, "/nar/"+probe.File, "Range", "bytes=8-")
	switch {
	case err != nil || a.Status == http.StatusNotFound || a.Status == http.StatusUnauthorized || a.Status == http.StatusForbidden:
		r.Note("ranges", "whether broken downloads go on cannot be said: the server is older, or reading takes a token")
	case a.Status != http.StatusPartialContent || string(a.Body) != string(probe.NAR[8:]):
		r.Fault("ranges", []string{"proxy_force_ranges on;   # nginx, where it keeps copies", "if (req.http.Range) { return (pass); }   # Varnish, in vcl_recv"},
			"a part of a NAR was asked for, and status %d came with %d bytes: something on the way drops Range, so Nix gives up where a download breaks", a.Status, len(a.Body))
	case a.Header.Get("Content-Encoding") != "":
		r.Fault("ranges", []string{"gzip off;   # nginx, at least in location /nar/"}, "a NAR came with Content-Encoding %s: Nix cannot go on with it where a download breaks", firstLine([]byte(a.Header.Get("Content-Encoding"))))
	default:
		r.OK("ranges", "broken downloads can go on")
	}
}

// bodies announces a large upload that the server refuses at once by its name, and sends next to nothing
// of it. An answer that does not come was kept back by something that wants all of the body first.
func (c *Cache) bodies(ctx context.Context, r *doctor.Report) {
	status, text, err := c.announce(ctx, patience)
	if errors.Is(err, errHeld) { // or something was busy
		status, text, err = c.announce(ctx, 3*patience)
	}
	fix := []string{"proxy_request_buffering off;   # nginx", "client_max_body_size 0;", "proxy_http_version 1.1;"}
	switch {
	case status == http.StatusRequestEntityTooLarge:
		r.Fault("upload-size", fix, "something in front of %s refuses an upload of 1 GB by its size (%s): nix copy fails with HTTP error 413", c.URL.Host, text)
	case errors.Is(err, errHeld):
		r.Fault("upload-buffering", fix, "something in front of %s collects an upload before it hands it on: large NARs lie on its disk first, and a refusal comes after all of it was sent", c.URL.Host)
	case errors.Is(err, errCut):
		r.OK("upload-buffering", "uploads of any size are handed on as they come; a refusal that comes early is not")
	case err != nil:
		r.Note("upload-buffering", "%v", err)
	case status >= 500:
		r.Warn("upload-buffering", nil, "%s answers an upload with status %d (%s)", c.URL.Host, status, text)
	default:
		r.OK("upload-buffering", "uploads of any size are handed on as they come")
	}
}

var (
	// errHeld says that no answer came to an upload of which a part was sent.
	errHeld = errors.New("the upload is held back")
	// errCut says that a part was sent and the upload was cut: the server's refusal came early, and what
	// is in front (Varnish) makes a 503 of that, or a reset.
	errCut = errors.New("the upload was cut")
)

// announce sends the head of a PUT, and waits for its answer.
func (c *Cache) announce(ctx context.Context, patience time.Duration) (status int, text string, err error) {
	ctx, cancel := context.WithTimeout(ctx, sending)
	defer cancel()
	config, err := c.trust.Config()
	if err != nil {
		return 0, "", err
	}
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, DisableKeepAlives: true, ExpectContinueTimeout: patience}
	defer t.CloseIdleConnections()
	body := &slow{done: ctx.Done(), stall: func() { time.AfterFunc(patience, cancel) }}
	// Not a NAR's name, and no password: whoever may upload what is refused, too.
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, c.URL.String()+"/nar/probe", body)
	if err != nil {
		return 0, "", err
	}
	req.ContentLength = announced
	req.Header.Set("Expect", "100-continue")
	req.Header.Set("Content-Type", "application/x-nix-nar")
	resp, err := t.RoundTrip(req)
	switch {
	case errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		return 0, "", errCut
	case err != nil && body.stalled.Load():
		return 0, "", errHeld
	case err != nil:
		return 0, "", fmt.Errorf("announce an upload: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusInternalServerError && body.asked() {
		return 0, "", errCut
	}
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // it is what there is
	return resp.StatusCode, firstLine(answer), nil
}

// slow is a body of which the begin comes, and then nothing until all is over.
type slow struct {
	sent    atomic.Int64
	stall   func()
	done    <-chan struct{}
	stalled atomic.Bool
}

// asked tells whether something wanted to have the body.
func (s *slow) asked() bool { return s.sent.Load() > 0 }

func (s *slow) Read(p []byte) (int, error) {
	if left := begun - s.sent.Load(); left > 0 {
		n := min(int64(len(p)), left)
		s.sent.Add(n)
		return int(n), nil
	}
	s.stalled.Store(true)
	s.stall()
	<-s.done
	return 0, io.ErrUnexpectedEOF
}

func (s *slow) Close() error { return nil }
