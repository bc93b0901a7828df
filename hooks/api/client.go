package api

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

// ClientOptions say how a Client reaches its server.
type ClientOptions struct {
	// Servers are base URLs of one server, tried in turn: the one that
	// answered last comes first.
	Servers []string
	// Token is sent as a Bearer token. TokenFile is read by NewClient, and may
	// be a pipe; a file is read again after a 401, so that a new token works at
	// once. At most one of the two; neither means anonymous.
	Token     string
	TokenFile string
	Renew     credential.Renewal // in place of both: how a token is got
	Trust     trust.Files
	UserAgent string
	// Self is the machine the client speaks for: its polls and logs carry it,
	// as its reports do. Empty with clients that are no hosts.
	Self Self
	// Timeout bounds a call, its body included; 30 s if zero. A Call's Wait
	// comes on top.
	Timeout time.Duration
}

// A Client calls the API. Proxies come from the environment (HTTPS_PROXY and
// so on). It speaks HTTP/1.1: a connection that is half open then costs one
// call its time-out, and is gone.
type Client struct {
	servers []*url.URL
	first   atomic.Int64
	token   *credential.Credential
	agent   string
	self    Self
	timeout time.Duration
	tls     *tls.Config
	client  *http.Client
}

// maxBody bounds an answer unless a Call says otherwise.
const maxBody = 8 << 20

// halfOpen is how much longer than it asked for a long poll waits for an
// answer before it takes the connection for dead.
const halfOpen = 10 * time.Second

// NewClient checks the options; it opens no connection.
func NewClient(o ClientOptions) (*Client, error) {
	c := &Client{agent: cmp.Or(o.UserAgent, "narwharf"), self: o.Self, timeout: cmp.Or(o.Timeout, 30*time.Second)}
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

// maxString bounds each string of an answer in bytes; in 4 KiB there is room for all that
// servers say, and for less than a terminal full.
const maxString = 4 << 10

// Decode reads the body as JSON. It ends at terminals and in logs, and a server says what
// it likes: strings are made fit for that. What is signed is bytes.
func (a *Answer) Decode(v any) error {
	if err := json.Unmarshal(a.Body, v); err != nil {
		return fmt.Errorf("%s answered with what is not the JSON that was expected (%w): is that a Narwharf? Look at the name, the port and the path in the server's URL", a.Server, err)
	}
	clip.Strings(v, maxString)
	return nil
}

// Do makes a call. Servers that cannot be reached, or answer 502 to 504, are
// passed over while there is another. An answer from 400 on is an *Error, and
// so is one that no Narwharf made, with the kind that fits its status; that
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
		var e *Error
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
	var e *Error
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
		return nil, unreached(base, err)
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
		return nil, decodeError(req, resp, text)
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

// decodeError makes an *Error of whatever was answered.
func decodeError(req *http.Request, resp *http.Response, text []byte) *Error {
	e := new(Error)
	if json.Unmarshal(text, e) != nil || e.Kind == "" || e.Message == "" {
		line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
		if line = clip.Line(line, 200); strings.HasPrefix(line, "<") {
			line = ""
		}
		if line != "" {
			line = ": " + line
		}
		line += noNarwharfHint(resp.StatusCode, line)
		*e = Error{Kind: kindOf(resp.StatusCode), Message: fmt.Sprintf("%s %s: %s%s", req.Method, req.URL.Redacted(), resp.Status, line)}
	}
	clip.Strings(e, maxString)
	e.Status = resp.StatusCode
	e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	return e
}

// kindsOfOthers are the kinds of answers that no Narwharf made.
var kindsOfOthers = map[int]Kind{
	401: Unauthorized, 403: Forbidden, 404: NotFound, 405: MethodNotAllowed, 412: RaceLost, 413: TooLarge,
	428: NoPrecondition, 429: Unavailable, 502: Unavailable, 503: Unavailable, 504: Unavailable,
}

// noNarwharfHint says what to look at where something else answers than a Narwharf.
func noNarwharfHint(status int, text string) string {
	switch {
	case strings.Contains(text, "HTTP request to an HTTPS server") || strings.Contains(text, "HTTP request was sent to HTTPS port"):
		return ": it speaks TLS, so the URL should begin with https://"
	case status == 401 || status == 403 || status >= 500:
		return "" // proxies say that, too
	}
	return ": what answers there is no Narwharf: look at the name, the port and the path in the server's URL"
}

func kindOf(status int) Kind {
	if kind := kindsOfOthers[status]; kind != "" {
		return kind
	}
	if status >= 500 {
		return Internal
	}
	return BadRequest
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
