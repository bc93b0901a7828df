package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"narwharf/signing"
)

// maxRelease bounds answers that hold releases, or all hosts.
const maxRelease = 256 << 20

// ask makes a call and reads its answer.
func ask[T any](ctx context.Context, c *Client, call Call) (*T, error) {
	a, err := c.Do(ctx, call)
	if err != nil {
		return nil, err
	}
	v := new(T)
	return v, a.Decode(v)
}

func channelPath(name string) string { return "/api/v1/channels/" + url.PathEscape(name) }

// atSeq is the ETag of a channel.
func atSeq(seq int64) string { return fmt.Sprintf(`"%d"`, seq) }

// Channels lists the channels, without their releases.
func (c *Client) Channels(ctx context.Context) ([]Channel, error) {
	list, err := ask[struct {
		Channels []Channel `json:"channels"`
	}](ctx, c, Call{Path: "/api/v1/channels"})
	if err != nil {
		return nil, err
	}
	return list.Channels, nil
}

// Channel reads a channel with its release. The *Error of one that is not there
// has, as its Channel, what is known of it.
func (c *Client) Channel(ctx context.Context, name string) (*Channel, error) {
	return ask[Channel](ctx, c, Call{Path: channelPath(name), MaxBody: maxRelease})
}

// History lists the last releases of a channel, the newest first.
func (c *Client) History(ctx context.Context, name string, limit int) ([]HistoryItem, error) {
	list, err := ask[struct {
		History []HistoryItem `json:"history"`
	}](ctx, c, Call{Path: channelPath(name) + "/history", Query: url.Values{"limit": {fmt.Sprint(limit)}}, MaxBody: maxRelease})
	if err != nil {
		return nil, err
	}
	return list.History, nil
}

// Release reads an earlier release. Nothing of it is verified.
func (c *Client) Release(ctx context.Context, name string, seq int64) (*signing.Release, error) {
	return ask[signing.Release](ctx, c, Call{Path: fmt.Sprintf("%s/releases/%d", channelPath(name), seq), MaxBody: maxRelease})
}

// Promote puts a release to a channel that is at ifSeq; with dryRun the server
// only checks it.
func (c *Client) Promote(ctx context.Context, name string, ifSeq int64, p *Promotion, dryRun bool) (*Promoted, error) {
	call := Call{Method: http.MethodPut, Path: channelPath(name), Body: p, IfMatch: atSeq(ifSeq), Timeout: 10 * time.Minute}
	if dryRun {
		call.Query = url.Values{"dry_run": {"1"}}
	}
	return ask[Promoted](ctx, c, call)
}

// PutClosure gives the server a closure manifest that it asked for.
func (c *Client) PutClosure(ctx context.Context, m *signing.Manifest) error {
	_, err := c.Do(ctx, Call{Method: http.MethodPut, Path: "/api/v1/closures/" + m.Digest().Hex(), Body: m.Text(), Timeout: 10 * time.Minute})
	return err
}

// DeleteChannel deletes a channel that is at ifSeq.
func (c *Client) DeleteChannel(ctx context.Context, name string, ifSeq int64) error {
	_, err := c.Do(ctx, Call{Method: http.MethodDelete, Path: channelPath(name), IfMatch: atSeq(ifSeq)})
	return err
}

// ChannelPolicy reads a channel's policy, after replacing it by set if that is
// not nil. The server says what is wrong with it.
func (c *Client) ChannelPolicy(ctx context.Context, name string, set json.RawMessage) (*ChannelPolicy, error) {
	call := Call{Path: channelPath(name) + "/policy"}
	if set != nil {
		call.Method, call.Body = http.MethodPut, set
	}
	return ask[ChannelPolicy](ctx, c, call)
}

// Events reads the audit log from an id on, and from which id it goes on. Of one
// channel only, unless that is "". With a wait it parks until there is more; no
// events mean that there was none.
func (c *Client) Events(ctx context.Context, since int64, channel string, wait time.Duration) (events []Event, next int64, err error) {
	a, err := c.Do(ctx, Call{Path: "/api/v1/events", Query: url.Values{"since": {fmt.Sprint(since)}, "channel": {channel}}, Wait: wait})
	if err != nil {
		return nil, since, err
	}
	if a.Status == http.StatusNotModified {
		return nil, since, nil
	}
	var page struct {
		Events []Event `json:"events"`
		Next   int64   `json:"next"`
	}
	err = a.Decode(&page)
	return page.Events, page.Next, err
}
