package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

func hostPath(host string) string { return "/api/v1/hosts/" + url.PathEscape(host) }

// Hosts lists the hosts of a channel, or all if that is "".
func (c *Client) Hosts(ctx context.Context, channel string) ([]Host, error) {
	hosts, _, err := c.HostsAfter(ctx, channel, "", 0)
	return hosts, err
}

// HostsAfter is Hosts; with the etag of an earlier answer it parks for up to
// wait, and is ErrNotModified when that is over.
func (c *Client) HostsAfter(ctx context.Context, channel, etag string, wait time.Duration) ([]Host, string, error) {
	call := Call{Path: "/api/v1/hosts", IfNoneMatch: etag, MaxBody: maxRelease}
	if channel != "" {
		call.Query = url.Values{"channel": {channel}}
	}
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
	var list struct {
		Hosts []Host `json:"hosts"`
	}
	err = a.Decode(&list)
	return list.Hosts, a.ETag, err
}

// Host reads what is known of a host.
func (c *Client) Host(ctx context.Context, host string) (*Host, error) {
	return ask[Host](ctx, c, Call{Path: hostPath(host)})
}

// PatchHost changes what the server keeps about a host: hold, unhold, labels.
func (c *Client) PatchHost(ctx context.Context, host string, change map[string]any) (*Host, error) {
	return ask[Host](ctx, c, Call{Method: http.MethodPatch, Path: hostPath(host), Body: change})
}

// PostHost does something about a host: "approve" with its instance; "retry",
// "revert" and "release" with the seq that they are about.
func (c *Client) PostHost(ctx context.Context, host, what string, body any) (*Host, error) {
	return ask[Host](ctx, c, Call{Method: http.MethodPost, Path: hostPath(host) + "/" + what, Body: body})
}

// RemoveHost forgets a host.
func (c *Client) RemoveHost(ctx context.Context, host string) error {
	_, err := c.Do(ctx, Call{Method: http.MethodDelete, Path: hostPath(host)})
	return err
}
