// Package transport makes a request of one of a server's URLs, and reads the answer. It knows no
// call of the API: hooks/api does, and makes errors of what is refused.
package transport

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"narwharf/hooks/api/credential"
	"narwharf/hooks/api/trust"
	"narwharf/narinfo/clip"
)

// Options say how a Client reaches its server; they are those of api.ClientOptions.
type Options struct {
	Servers   []string
	Token     string
	TokenFile string
	Renew     credential.Renewal
	Trust     trust.Files
	UserAgent string
	Timeout   time.Duration // 30 s if zero
}

// A Client makes requests. Proxies come from the environment (HTTPS_PROXY and so on). It speaks
// HTTP/1.1: a connection that is half open then costs one call its time-out, and is gone.
type Client struct {
	servers []*url.URL
	first   atomic.Int64
	token   *credential.Credential
	agent   string
	timeout time.Duration
	tls     *tls.Config
	client  *http.Client
}

// maxBody bounds an answer unless a Call says otherwise.
const maxBody = 8 << 20

// halfOpen is how much longer than it asked for a long poll waits for an
// answer before it takes the connection for dead.
const halfOpen = 10 * time.Second

// New checks the options; it opens no connection.
func New(o Options) (*Client, error) {
	c := &Client{agent: cmp.Or(o.UserAgent, "narwharf"), timeout: cmp.Or(o.Timeout, 30*time.Second)}
	if len(o.Servers) == 0 {
		return nil, errors.New("no server is given: name its URL, as https://cache.example.org")
	}
	for _, s := range o.Servers {
		u, err := ParseURL(s)
		if err != nil {
			return nil, fmt.Errorf("server %w", err)
		}
		c.servers = append(c.servers, u)
	}
	var err error
	if o.Renew != nil {
		c.token = credential.Renewed(o.Renew)
	} else if c.token, err = credential.New(o.Token, o.TokenFile); err != nil {
		return nil, err
	}
	if c.tls, err = o.Trust.Config(); err != nil {
		return nil, err
	}
	c.client = &http.Client{Transport: c.transport(), CheckRedirect: sameServer}
	return c, nil
}

// ParseURL reads the base URL of a server: http or https, a host, and perhaps a
// path, which comes without a slash at its end.
func ParseURL(s string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimRight(s, "/"))
	if _, port, splits := net.SplitHostPort(s); splits == nil && port != "" && !strings.Contains(s, "/") {
		return nil, fmt.Errorf("%q is not a URL like https://cache.example.org: write it as http://%[1]s, or https://%[1]s", s)
	}
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q is not a URL like https://cache.example.org", s)
	}
	if u.User != nil {
		return nil, fmt.Errorf("%q holds credentials: put the token in a file", u.Redacted())
	}
	return u, nil
}

func (c *Client) transport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:       c.tls, // and with it no HTTP/2, since it is not asked for
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       90 * time.Second,
	}
}

// Transport is a new one by the client's options, for what is not the API:
// proxy, authorities and time-outs are the same, bodies come as they are sent.
func (c *Client) Transport() *http.Transport {
	t := c.transport()
	t.DisableCompression = true
	return t
}

// sameServer lets reads be redirected within a server; the token goes nowhere
// else, and a write is never made anew as a read.
func sameServer(r *http.Request, via []*http.Request) error {
	first := via[0]
	if first.Method != http.MethodGet || r.URL.Host != first.URL.Host || (first.URL.Scheme == "https" && r.URL.Scheme != "https") {
		return fmt.Errorf("it redirects to %s://%s: give that as the server's URL", r.URL.Scheme, r.URL.Host)
	}
	if len(via) > 5 {
		return errors.New("it redirects in circles")
	}
	return nil
}

// Hostname is that of the first server.
func (c *Client) Hostname() string { return c.servers[0].Hostname() }

// Token is what the client authenticates with, "" if nothing.
func (c *Client) Token() string {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	return c.token.Now(ctx)
}

// Server is the base URL that is tried first.
func (c *Client) Server() string { return c.servers[int(c.first.Load())%len(c.servers)].String() }

// A Call is one request.
type Call struct {
	Method string // GET if empty
	Path   string // below the base URL, escaped: "/api/v1/channels/web"
	Query  url.Values
	// Body is encoded as JSON, unless it is a []byte, which is sent as text, a json.RawMessage,
	// or url.Values, a form.
	Body        any
	IfMatch     string // an ETag with its quotes
	IfNoneMatch string
	Wait        time.Duration // long-poll: "Prefer: wait=N", whole seconds
	Fresh       bool          // over a new connection, closed after it
	Timeout     time.Duration // instead of the client's
	MaxBody     int64         // instead of 8 MiB

	text []byte // the body, encoded
	kind string // of it
}

// An Answer is a response below 400, its body read whole.
type Answer struct {
	Status int // 200, 201, 204, 304, …
	ETag   string
	Body   []byte
	Server string // base URL that answered
}

// Refused is an answer from 400 on.
type Refused struct {
	Status     int
	Words      string // what was asked, and the status in words
	Body       []byte
	RetryAfter time.Duration
}

// Error implements error.
func (r *Refused) Error() string { return r.Words }

// MaxString bounds each string of an answer in bytes; in 4 KiB there is room for all that
// servers say, and for less than a terminal full.
const MaxString = 4 << 10

// Decode reads the body as JSON. It ends at terminals and in logs, and a server says what
// it likes: strings are made fit for that. What is signed is bytes.
func (a *Answer) Decode(v any) error {
	if err := json.Unmarshal(a.Body, v); err != nil {
		return fmt.Errorf("%s answered with what is not the JSON that was expected (%w): is that a Narwharf? Look at the name, the port and the path in the server's URL", a.Server, err)
	}
	clip.Strings(v, MaxString)
	return nil
}

// Do makes a call. Servers that cannot be reached, or answer 502 to 504, are
// passed over while there is another. An answer from 400 on is a *Refused; that
// there was no answer at all is any other error.
func (c *Client) Do(ctx context.Context, call Call) (*Answer, error) {
	if err := call.encode(); err != nil {
		return nil, err
	}
	start := int(c.first.Load())
	var last error
	for i := range c.servers {
		n := (start + i) % len(c.servers)
		a, err := c.try(ctx, c.servers[n], call)
		if err == nil {
			c.first.Store(int64(n))
			return a, nil
		}
		last = err
		var e *Refused
		if ctx.Err() != nil || (errors.As(err, &e) && (e.Status < 502 || e.Status > 504)) {
			c.first.Store(int64(n))
			return nil, err
		}
	}
	return nil, last
}

func (call *Call) encode() (err error) {
	switch b := call.Body.(type) {
	case nil:
	case []byte:
		call.text, call.kind = b, "text/plain; charset=utf-8"
	case url.Values:
		call.text, call.kind = []byte(b.Encode()), "application/x-www-form-urlencoded"
	case json.RawMessage: // as it was written
		call.text, call.kind = b, "application/json"
	default:
		call.text, err = json.Marshal(b)
		call.kind = "application/json"
	}
	return err
}

// try asks one server; after a 401 once more, if there is another token by now.
func (c *Client) try(ctx context.Context, base *url.URL, call Call) (*Answer, error) {
	token := c.token.Now(ctx)
	a, err := c.ask(ctx, base, call, token)
	var e *Refused
	if !errors.As(err, &e) || e.Status != http.StatusUnauthorized {
		return a, err
	}
	again, why := c.token.Again(ctx, token)
	if why != nil {
		return nil, why
	}
	if !again {
		return nil, err
	}
	return c.ask(ctx, base, call, c.token.Text())
}

func (c *Client) ask(ctx context.Context, base *url.URL, call Call, token string) (*Answer, error) {
	timeout := cmp.Or(call.Timeout, c.timeout)
	if call.Wait > 0 {
		timeout = max(call.Timeout, call.Wait+halfOpen)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := c.request(ctx, base, call, token)
	if err != nil {
		return nil, err
	}
	client := c.client
	if call.Fresh {
		t := c.transport()
		t.DisableKeepAlives = true
		defer t.CloseIdleConnections()
		client = &http.Client{Transport: t, CheckRedirect: sameServer}
	}
	resp, err := client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			c.client.CloseIdleConnections() // whichever was half open
		}
		return nil, Unreached(base, err)
	}
	defer resp.Body.Close()
	limit := cmp.Or(call.MaxBody, maxBody)
	text, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s %s: the answer broke off: %w", req.Method, req.URL.Redacted(), err)
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s %s: the answer has more than %d bytes", req.Method, req.URL.Redacted(), limit)
	}
	if resp.StatusCode >= 400 {
		return nil, &Refused{Status: resp.StatusCode, Words: fmt.Sprintf("%s %s: %s", req.Method, req.URL.Redacted(), resp.Status), Body: text, RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now())}
	}
	// A proxy's page for whatever it does not know has 200, too.
	page := strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html")
	if api := strings.HasPrefix(call.Path, "/api/"); api && resp.StatusCode == http.StatusOK && (page || req.Method != http.MethodGet && !json.Valid(text)) {
		return nil, fmt.Errorf("%s %s: what answered is no Narwharf: look at the name, the port and the path in the server's URL", req.Method, req.URL.Redacted())
	}
	return &Answer{Status: resp.StatusCode, ETag: resp.Header.Get("ETag"), Body: text, Server: base.String()}, nil
}

func (c *Client) request(ctx context.Context, base *url.URL, call Call, token string) (*http.Request, error) {
	target := base.String() + call.Path
	if len(call.Query) > 0 {
		target += "?" + call.Query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, call.Method, target, bytes.NewReader(call.text))
	if err != nil {
		return nil, err
	}
	header := map[string]string{"User-Agent": c.agent, "Content-Type": call.kind, "If-Match": call.IfMatch, "If-None-Match": call.IfNoneMatch}
	if token != "" {
		header["Authorization"] = "Bearer " + token
	}
	if call.Wait > 0 {
		header["Prefer"] = "wait=" + strconv.Itoa(int(call.Wait/time.Second))
	}
	for name, value := range header {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	return req, nil
}

// retryAfter reads seconds or a date (RFC 9110, section 10.2.3); at most ten
// minutes, since a wrong clock must not silence a host.
func retryAfter(s string, now time.Time) time.Duration {
	d := time.Duration(0)
	if n, err := strconv.Atoi(s); err == nil {
		d = time.Duration(n) * time.Second
	} else if t, err := http.ParseTime(s); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), 10*time.Minute)
}
