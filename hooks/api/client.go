package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"time"

	"narwharf/hooks/api/credential"
	"narwharf/hooks/api/transport"
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

// A Client calls the API. See transport.Client.
type Client struct {
	*transport.Client
	self Self
}

// A Call is one request.
type Call = transport.Call

// An Answer is a response below 400, its body read whole.
type Answer = transport.Answer

// NewClient checks the options; it opens no connection.
func NewClient(o ClientOptions) (*Client, error) {
	c, err := transport.New(transport.Options{Servers: o.Servers, Token: o.Token, TokenFile: o.TokenFile, Renew: o.Renew, Trust: o.Trust, UserAgent: o.UserAgent, Timeout: o.Timeout})
	if err != nil {
		return nil, err
	}
	return &Client{c, o.Self}, nil
}

// ParseURL reads the base URL of a server: http or https, a host, and perhaps a
// path, which comes without a slash at its end.
func ParseURL(s string) (*url.URL, error) { return transport.ParseURL(s) }

// Unreached says why a server gave no answer, and what to look at. err is of net/http.
func Unreached(base *url.URL, err error) error { return transport.Unreached(base, err) }

// Do makes a call. Servers that cannot be reached, or answer 502 to 504, are
// passed over while there is another. An answer from 400 on is an *Error, and
// so is one that no Narwharf made, with the kind that fits its status; that
// there was no answer at all is any other error.
func (c *Client) Do(ctx context.Context, call Call) (*Answer, error) {
	a, err := c.Client.Do(ctx, call)
	if refused := (*transport.Refused)(nil); errors.As(err, &refused) {
		return nil, decodeError(refused)
	}
	return a, err
}

// decodeError makes an *Error of whatever was answered.
func decodeError(r *transport.Refused) *Error {
	e := new(Error)
	if json.Unmarshal(r.Body, e) != nil || e.Kind == "" || e.Message == "" {
		line, _, _ := strings.Cut(strings.TrimSpace(string(r.Body)), "\n")
		if line = clip.Line(line, 200); strings.HasPrefix(line, "<") {
			line = ""
		}
		if line != "" {
			line = ": " + line
		}
		line += Stranger(r.Status, line)
		*e = Error{Kind: kindOf(r.Status), Message: r.Words + line, foreign: true}
	}
	clip.Strings(e, transport.MaxString)
	e.Status, e.RetryAfter = r.Status, r.RetryAfter
	return e
}

// kindsOfOthers are the kinds of answers that no Narwharf made.
var kindsOfOthers = map[int]Kind{
	401: Unauthorized, 403: Forbidden, 404: NotFound, 405: MethodNotAllowed, 412: RaceLost, 413: TooLarge,
	428: NoPrecondition, 429: Unavailable, 502: Unavailable, 503: Unavailable, 504: Unavailable,
}

// Stranger says what to look at where something else answers than a Narwharf, "" where that is not plain.
func Stranger(status int, text string) string {
	switch {
	case WantsTLS(text):
		return ": it speaks TLS, so the URL should begin with https://"
	case status == 401 || status == 403 || status >= 500:
		return "" // proxies say that, too
	}
	return ": what answers there is no Narwharf: look at the name, the port and the path in the server's URL"
}

// WantsTLS tells whether an answer is that of a server of https that was asked in plain text.
func WantsTLS(text string) bool {
	return strings.Contains(text, "HTTP request to an HTTPS server") || strings.Contains(text, "HTTP request was sent to HTTPS port")
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
