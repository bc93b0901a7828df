package notify

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/notify"
	"narwharf/narinfo/clip"
	"narwharf/signing/access/address"
)

const (
	patience  = 15 * time.Second // for one request
	maxAnswer = 500              // bytes of an answer that people are shown
	// maxPause is the longest that a target is left alone because it asks for that.
	maxPause = time.Hour
)

// newClient makes the client of a target. Where there is a proxy, it is the proxy that looks a name up.
func newClient(private bool) *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second, Control: func(_, to string, _ syscall.RawConn) error {
		if !private && address.Private(to) {
			return fmt.Errorf("%s is a private address: say private_addresses = true in the section if that is right", to)
		}
		return nil
	}}
	byProxy := &net.Dialer{Timeout: 5 * time.Second}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment,
			DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
				if proxied, _ := ctx.Value(proxiedKey{}).(bool); proxied {
					return byProxy.DialContext(ctx, network, to)
				}
				return dialer.DialContext(ctx, network, to)
			},
			TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: patience, IdleConnTimeout: 30 * time.Second,
			MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
		},
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type proxiedKey struct{}

// post makes one request about an event. The error says why the target has not taken it; wait is
// for how long it asked to be left alone, and refused that it will never want this event.
func (q *queue) post(ctx context.Context, e *api.Event) (a *notify.Attempt, wait time.Duration, refused bool) {
	began := q.o.Clock()
	a = &notify.Attempt{At: began.UTC(), Event: e.ID}
	resp, err := q.send(ctx, e, began)
	a.Seconds = q.o.Clock().Sub(began).Seconds()
	if err != nil {
		if inner := (*url.Error)(nil); errors.As(err, &inner) { // it has the URL, which may be a secret
			err = inner.Err
		}
		a.Error = clip.Line(err.Error(), maxAnswer)
		return a, 0, false
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // the status says what matters
	a.Status, a.Answer = resp.StatusCode, clip.Line(string(text), maxAnswer)
	switch {
	case a.Status >= 200 && a.Status < 300:
		return a, 0, false
	case a.Status >= 300 && a.Status < 400:
		a.Error = fmt.Sprintf("it answers %d, and redirects are not followed: put the address that is meant into url", a.Status)
	default:
		a.Error = fmt.Sprintf("it answers %d %s", a.Status, http.StatusText(a.Status))
	}
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
		wait = min(time.Duration(min(n, 1<<20))*time.Second, maxPause)
	}
	switch a.Status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity: // it is the body
		refused = true
	}
	return a, wait, refused
}

func (q *queue) send(ctx context.Context, e *api.Event, at time.Time) (*http.Response, error) {
	t := q.target
	text := body(t.Format, q.o.PublicURL, e)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL.String(), bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	id := idOf(q.o.PublicURL, t.Name, e)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "narwharf/"+cmp.Or(q.o.Version, "dev"))
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(at.Unix(), 10))
	if len(t.Secrets) > 0 {
		req.Header.Set("Webhook-Signature", sign(t.Secrets, id, at, text))
	}
	if proxy, err := http.ProxyFromEnvironment(req); proxy != nil || err != nil {
		req = req.WithContext(context.WithValue(ctx, proxiedKey{}, true))
	}
	return q.client.Do(req)
}
