package remote

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// client makes requests.
type client struct {
	http     *http.Client
	base     *url.URL
	user     string
	password string
	agent    string
	patience time.Duration
	pause    time.Duration // before a request is made again; it doubles
	reached  *atomic.Bool  // it has answered
}

// wrongURL tells whether an error of the first request is one that stays.
func wrongURL(err error) bool {
	var dns *net.DNSError
	var record tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.As(err, &dns) && dns.IsNotFound || errors.As(err, &record) ||
		errors.As(err, &certificate) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// Transport is one for caches that are read: the proxy is of the environment, and a NAR
// comes as it is packed.
func Transport() http.RoundTripper {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		MaxIdleConnsPerHost:   32,
		IdleConnTimeout:       90 * time.Second,
		DisableCompression:    true,
	}
}

func newClient(o Options) client {
	return client{
		http: &http.Client{Transport: o.Transport, CheckRedirect: redirect}, base: o.Base,
		user: cmp.Or(o.User, "narwharf"), password: o.Password, agent: cmp.Or(o.Agent, "narwharf"),
		patience: cmp.Or(o.Patience, time.Minute), pause: 250 * time.Millisecond, reached: new(atomic.Bool),
	}
}

// redirect follows reads, to a store of files too, which gets no password. net/http alone
// would give it to another port of the host.
func redirect(r *http.Request, via []*http.Request) error {
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return http.ErrUseLastResponse
	case via[0].URL.Scheme == "https" && r.URL.Scheme != "https":
		return errors.New("it redirects from https to http")
	case len(via) > 5:
		return errors.New("it redirects in circles")
	}
	if r.URL.Host != via[0].URL.Host {
		r.Header.Del("Authorization")
	}
	return nil
}

// transient is an error after which the request may be made again.
type transient struct{ error }

func (t transient) Unwrap() error { return t.error }

// again does something until it works, ends in an error that is not transient, or was
// tried too often.
func (c *client) again(ctx context.Context, do func() error) error {
	pause := c.pause
	for i := 1; ; i++ {
		err := do()
		var t transient
		if !errors.As(err, &t) || ctx.Err() != nil {
			return err
		}
		if i == attempts {
			return t.error
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
		pause *= 4
	}
}

// do makes a request. Of an answer something must come within the time of patience, again
// and again; closing its body ends it.
func (c *client) do(ctx context.Context, method, target string, body io.Reader, size int64, header http.Header) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(c.patience, func() { cancel(fmt.Errorf("nothing came for %s", c.patience)) })
	end := func() { timer.Stop(); cancel(nil) }
	if body != nil {
		body = &patient{io.NopCloser(body), ctx, timer, c.patience, nil}
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		end()
		return nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", c.agent)
	req.Header.Set("Accept-Encoding", "identity")
	if body != nil {
		req.ContentLength = size
	}
	if c.password != "" && req.URL.Host == c.base.Host && req.URL.Scheme == c.base.Scheme {
		req.SetBasicAuth(c.user, c.password)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		end()
		if c.reached.Load() || method != http.MethodGet || !wrongURL(err) {
			err = transient{err}
		}
		return nil, err
	}
	c.reached.Store(true)
	timer.Reset(c.patience)
	resp.Body = &patient{resp.Body, ctx, timer, c.patience, end}
	return resp, nil
}

// patient gives more time with each part that is read.
type patient struct {
	io.ReadCloser
	ctx   context.Context
	timer *time.Timer
	time  time.Duration
	end   func() // at Close, if it is the last
}

func (p *patient) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	p.timer.Reset(p.time)
	if err != nil && err != io.EOF {
		if cause := context.Cause(p.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

func (p *patient) Close() error {
	err := p.ReadCloser.Close()
	if p.end != nil {
		p.end()
	}
	return err
}
