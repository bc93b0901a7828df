package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"narwharf/narinfo"
	"narwharf/signing"
)

// ErrNotModified is the outcome of a conditional read of what is as it was.
var ErrNotModified = errors.New("not modified")

// Desired reads what a host shall do. With an etag it parks for up to wait
// and is ErrNotModified when that is over.
func (c *Client) Desired(ctx context.Context, host, channel, target, etag string, wait time.Duration) (*Desired, string, error) {
	q := c.self.query(url.Values{"channel": {channel}, "target": {target}})
	call := Call{Path: hostPath(host) + "/desired", Query: q, IfNoneMatch: etag}
	if etag != "" {
		call.Wait = wait
	}
	a, err := c.Do(ctx, call)
	if err != nil {
		return nil, "", err
	}
	if a.Status == http.StatusNotModified {
		return nil, etag, ErrNotModified
	}
	d := new(Desired)
	if err := a.Decode(d); err != nil {
		return nil, "", err
	}
	return d, a.ETag, nil
}

// PutStatus reports what a host is. An *Error of kind StaleStatus says with
// StartID and Counter what the server has that is newer. fresh makes it over a
// new connection, which proves that one can be made. Which machine it is, the
// client says where s does not.
func (c *Client) PutStatus(ctx context.Context, host string, s *Status, fresh bool) error {
	if s.Instance == "" && c.self.Instance != "" {
		as := *s
		as.Instance, as.Machine = c.self.Instance, c.self.Machine
		s = &as
	}
	_, err := c.Do(ctx, Call{Method: http.MethodPut, Path: hostPath(host) + "/status", Body: s, Fresh: fresh, Timeout: 10 * time.Second})
	return err
}

// MaxLog is how much of an attempt's log a server takes, in bytes.
const MaxLog = 256 << 10

// PostLog sends the log of an attempt, of which the last MaxLog bytes count.
func (c *Client) PostLog(ctx context.Context, host, attempt, channel string, text []byte) error {
	if len(text) > MaxLog {
		text = text[len(text)-MaxLog:]
	}
	_, err := c.Do(ctx, Call{Method: http.MethodPost, Path: hostPath(host) + "/log", Query: c.self.query(url.Values{"attempt": {attempt}, "channel": {channel}}), Body: text})
	return err
}

// Closure reads the text of a closure manifest. The caller checks its digest.
func (c *Client) Closure(ctx context.Context, d signing.Digest) ([]byte, error) {
	a, err := c.Do(ctx, Call{Path: "/api/v1/closures/" + d.Hex(), MaxBody: signing.MaxManifest, Timeout: 5 * time.Minute})
	if err != nil {
		return nil, err
	}
	return a.Body, nil
}

// Narinfo reads what the cache says of a path.
func (c *Client) Narinfo(ctx context.Context, p narinfo.Path) (*narinfo.Info, error) {
	a, err := c.Do(ctx, Call{Path: "/" + p.Hash() + ".narinfo", MaxBody: 1 << 20})
	if err != nil {
		return nil, err
	}
	i, err := narinfo.Parse(a.Body)
	if err != nil {
		return nil, fmt.Errorf("the cache's narinfo of %s: %w", p, err)
	}
	return i, nil
}
