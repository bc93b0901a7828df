package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"narwharf/hooks/api/plan"
	"narwharf/hooks/api/proof"
	"narwharf/narinfo"
	"narwharf/signing"
)

const (
	// maxRelease bounds answers that hold releases, or all hosts.
	maxRelease = 256 << 20
	// MaxLog is how much of an attempt's log a server takes, in bytes.
	MaxLog = 256 << 10
)

// ask makes a call and reads its answer.
func ask[T any](ctx context.Context, c *Client, call Call) (v T, err error) {
	a, err := c.Do(ctx, call)
	if err == nil {
		err = a.Decode(&v)
	}
	return v, err
}

// ErrNotModified is the outcome of a conditional read of what is as it was.
var ErrNotModified = errors.New("not modified")

// poll reads what has an ETag. With that of an earlier answer it parks for up to
// wait, and is ErrNotModified when that is over.
func poll[T any](ctx context.Context, c *Client, call Call, etag string, wait time.Duration) (v T, next string, err error) {
	if etag != "" {
		call.IfNoneMatch, call.Wait = etag, wait
	}
	a, err := c.Do(ctx, call)
	switch {
	case err != nil:
		return v, "", err
	case a.Status == http.StatusNotModified:
		return v, etag, ErrNotModified
	}
	return v, a.ETag, a.Decode(&v)
}

func channelPath(name string) string { return "/api/v1/channels/" + url.PathEscape(name) }

func hostPath(host string) string { return "/api/v1/hosts/" + url.PathEscape(host) }

// atSeq is the ETag of a channel.
func atSeq(seq int64) string { return fmt.Sprintf(`"%d"`, seq) }

// Channels lists the channels, without their releases.
func (c *Client) Channels(ctx context.Context) ([]Channel, error) {
	list, err := ask[struct {
		Channels []Channel `json:"channels"`
	}](ctx, c, Call{Path: "/api/v1/channels"})
	return list.Channels, err
}

// Channel reads a channel with its release. The *Error of one that is not there
// has, as its Channel, what is known of it.
func (c *Client) Channel(ctx context.Context, name string) (*Channel, error) {
	return ask[*Channel](ctx, c, Call{Path: channelPath(name), MaxBody: maxRelease})
}

// ChannelAfter is Channel that waits for another release than the one with the ETag of an earlier answer;
// ErrNotModified says that there was none.
func (c *Client) ChannelAfter(ctx context.Context, name, etag string, wait time.Duration) (*Channel, string, error) {
	return poll[*Channel](ctx, c, Call{Path: channelPath(name), MaxBody: maxRelease}, etag, wait)
}

// History lists the last releases of a channel, the newest first.
func (c *Client) History(ctx context.Context, name string, limit int) ([]HistoryItem, error) {
	var all []HistoryItem
	for query := (url.Values{}); ; {
		query.Set("limit", fmt.Sprint(limit-len(all)))
		page, err := ask[struct {
			History []HistoryItem `json:"history"`
			Next    int64         `json:"next"`
		}](ctx, c, Call{Path: channelPath(name) + "/history", Query: query, MaxBody: maxRelease})
		if err != nil {
			return nil, err
		}
		if all = append(all, page.History...); page.Next == 0 || len(all) >= limit {
			return all, nil
		}
		query.Set("below", fmt.Sprint(page.Next))
	}
}

// Ended counts the hosts that ended a release in a state, by seq. It is nil if the
// server does not say.
func (c *Client) Ended(ctx context.Context, name string) (map[int64]map[State]int, error) {
	list, err := ask[struct {
		Hosts map[int64]map[State]int `json:"hosts"`
	}](ctx, c, Call{Path: channelPath(name) + "/history", Query: url.Values{"limit": {"1"}, "hosts": {"1"}}, MaxBody: maxRelease})
	return list.Hosts, err
}

// Release reads an earlier release. Nothing of it is verified.
func (c *Client) Release(ctx context.Context, name string, seq int64) (*signing.Release, error) {
	return ask[*signing.Release](ctx, c, Call{Path: fmt.Sprintf("%s/releases/%d", channelPath(name), seq), MaxBody: maxRelease})
}

// Promote puts a release to a channel that is at ifSeq; with dryRun the server
// only checks it.
func (c *Client) Promote(ctx context.Context, name string, ifSeq int64, p *Promotion, dryRun bool) (*Promoted, error) {
	return c.PromoteAs(ctx, name, ifSeq, p, PromoteAs{DryRun: dryRun})
}

// PromoteAs is how a release is promoted.
type PromoteAs struct {
	DryRun bool // the server checks it only, and says what it would do
	// Now goes past waves, bakes, requires, after and quarantine, Force past quarantine.
	Now, Force bool
	Reason     string
}

// PromoteAs is Promote in another way.
func (c *Client) PromoteAs(ctx context.Context, name string, ifSeq int64, p *Promotion, as PromoteAs) (*Promoted, error) {
	call := Call{Method: http.MethodPut, Path: channelPath(name), Body: p, IfMatch: atSeq(ifSeq), Timeout: 10 * time.Minute, Query: url.Values{}}
	for name, on := range map[string]bool{"dry_run": as.DryRun, "now": as.Now, "force": as.Force} {
		if on {
			call.Query.Set(name, "1")
		}
	}
	if as.Reason != "" {
		call.Query.Set("reason", as.Reason)
	}
	return ask[*Promoted](ctx, c, call)
}

// Plan tells what a release or a store path would do to the hosts of a channel: to is a path, a seq,
// "last-good", or "" for the release that is there. A path is for a target alone, if that is not "".
func (c *Client) Plan(ctx context.Context, name, to, target string) (*plan.Plan, error) {
	query := url.Values{}
	for key, value := range map[string]string{"to": to, "target": target} {
		if value != "" {
			query.Set(key, value)
		}
	}
	return ask[*plan.Plan](ctx, c, Call{Path: channelPath(name) + "/plan", Query: query, Timeout: 2 * time.Minute})
}

// PutClosure gives the server a closure manifest that it asked for.
func (c *Client) PutClosure(ctx context.Context, m *signing.Manifest) error {
	_, err := c.Do(ctx, Call{Method: http.MethodPut, Path: "/api/v1/closures/" + m.Digest().Hex(), Body: m.Text(), Timeout: 10 * time.Minute})
	return err
}

// Keys reads what is known of a channel's keys, after a change if that is not nil.
func (c *Client) Keys(ctx context.Context, name string, change *KeysChange) (*Keys, error) {
	call := Call{Path: channelPath(name) + "/keys", MaxBody: 16 << 20}
	if change != nil {
		call.Method, call.Body = http.MethodPut, change
	}
	return ask[*Keys](ctx, c, call)
}

// DeleteChannel deletes a channel that is at ifSeq.
func (c *Client) DeleteChannel(ctx context.Context, name string, ifSeq int64) error {
	_, err := c.Do(ctx, Call{Method: http.MethodDelete, Path: channelPath(name), IfMatch: atSeq(ifSeq)})
	return err
}

// Events reads the audit log from an id on, and from which id it goes on. Of one
// channel only, unless that is "". With a wait it parks until there is more; no
// events mean that there was none.
func (c *Client) Events(ctx context.Context, since int64, channel string, wait time.Duration) (events []Event, next int64, err error) {
	events, next, err = c.EventsWhere(ctx, url.Values{"since": {fmt.Sprint(since)}, "channel": {channel}}, wait)
	return events, max(next, since), err
}

// EventsWhere reads the log by a query of the API: channel, host, kind, who, and since or before, an id below which the newest
// lines come first. next is the id to go on from; backwards 0 where nothing is left.
func (c *Client) EventsWhere(ctx context.Context, query url.Values, wait time.Duration) (events []Event, next int64, err error) {
	a, err := c.Do(ctx, Call{Path: "/api/v1/events", Query: query, Wait: wait})
	if err != nil || a.Status == http.StatusNotModified {
		return nil, 0, err
	}
	var page struct {
		Events []Event `json:"events"`
		Next   int64   `json:"next"`
	}
	err = a.Decode(&page)
	return page.Events, page.Next, err
}

// Hosts lists the hosts of a channel, or all if that is "".
func (c *Client) Hosts(ctx context.Context, channel string) ([]Host, error) {
	hosts, _, err := c.HostsAfter(ctx, channel, "", 0)
	return hosts, err
}

// HostsAfter is Hosts; with the etag of an earlier answer it parks for up to
// wait, and is ErrNotModified when that is over.
func (c *Client) HostsAfter(ctx context.Context, channel, etag string, wait time.Duration) ([]Host, string, error) {
	call := Call{Path: "/api/v1/hosts", MaxBody: maxRelease, Query: url.Values{"after": {""}}}
	if channel != "" {
		call.Query.Set("channel", channel)
	}
	var all []Host
	for whole := ""; ; etag = "" {
		page, tag, err := poll[struct {
			Hosts []Host `json:"hosts"`
			Next  string `json:"next"`
		}](ctx, c, call, etag, wait)
		if err != nil {
			return nil, tag, err
		}
		// The ETag is that of all pages: a change since the first is seen with the next wait.
		all, whole = append(all, page.Hosts...), cmp.Or(whole, tag)
		if page.Next == "" {
			return all, whole, nil
		}
		call.Query.Set("after", page.Next)
	}
}

// Host reads what is known of a host.
func (c *Client) Host(ctx context.Context, host string) (*Host, error) {
	return ask[*Host](ctx, c, Call{Path: hostPath(host)})
}

// PatchHost changes what the server keeps about a host: hold, unhold, labels.
func (c *Client) PatchHost(ctx context.Context, host string, change map[string]any) (*Host, error) {
	return ask[*Host](ctx, c, Call{Method: http.MethodPatch, Path: hostPath(host), Body: change})
}

// Asks are the SSH host keys by which machines ask to join, of channels that the caller may look at.
func (c *Client) Asks(ctx context.Context) ([]Ask, error) {
	list, err := ask[struct {
		Asks []Ask `json:"asks"`
	}](ctx, c, Call{Method: http.MethodGet, Path: "/api/v1/asks"})
	return list.Asks, err
}

// RefuseHost says that a key is not the host's.
func (c *Client) RefuseHost(ctx context.Context, host, key string) error {
	_, err := c.Do(ctx, Call{Method: http.MethodPost, Path: hostPath(host) + "/refuse", Body: map[string]string{"key": key}})
	return err
}

// PostHost does something about a host: "approve" with its instance; "retry",
// "revert" and "release" with the seq that they are about.
func (c *Client) PostHost(ctx context.Context, host, what string, body any) (*Host, error) {
	return ask[*Host](ctx, c, Call{Method: http.MethodPost, Path: hostPath(host) + "/" + what, Body: body})
}

// RemoveHost forgets a host.
func (c *Client) RemoveHost(ctx context.Context, host string) error {
	_, err := c.Do(ctx, Call{Method: http.MethodDelete, Path: hostPath(host)})
	return err
}

// Join exchanges the join token that the client has for the host's own token.
func (c *Client) Join(ctx context.Context, host, channel string) (*Joined, error) {
	return ask[*Joined](ctx, c, Call{Method: http.MethodPost, Path: "/api/v1/join", Query: url.Values{"channel": {channel}},
		Body: &Join{Host: host, Channel: channel, Instance: c.self.Instance, Machine: c.self.Machine}})
}

// JoinBy gets the host's own token for a proof that prove makes over a nonce ("" where it needs
// none) for the server with a URL. host may be "": the server says which it is.
func (c *Client) JoinBy(ctx context.Context, host, channel string, needsNonce bool, prove func(nonce, url string) (*proof.Proof, error)) (*Joined, error) {
	var ch proof.Challenged
	var err error
	if needsNonce {
		ch, err = ask[proof.Challenged](ctx, c, Call{Method: http.MethodPost, Path: "/api/v1/challenge", Body: &proof.Challenge{Host: host, Instance: c.self.Instance}})
	}
	if err != nil {
		return nil, err
	}
	shown, err := prove(ch.Nonce, ch.URL)
	if err != nil {
		return nil, err
	}
	return ask[*Joined](ctx, c, Call{Method: http.MethodPost, Path: "/api/v1/join", Query: url.Values{"channel": {channel}},
		Body: &Join{Host: host, Channel: channel, Instance: c.self.Instance, Machine: c.self.Machine, Proof: shown}})
}

// Desired reads what a host shall do. seq is the highest that it has accepted. With an etag it parks for up to wait
// and is ErrNotModified when that is over.
func (c *Client) Desired(ctx context.Context, host, channel, target string, have Have, etag string, wait time.Duration) (*Desired, string, error) {
	q := c.self.query(url.Values{"channel": {channel}, "target": {target}, "seq": {strconv.FormatInt(have.Seq, 10)}, "keys": {strconv.FormatInt(have.Keys, 10)}})
	return poll[*Desired](ctx, c, Call{Path: hostPath(host) + "/desired", Query: q}, etag, wait)
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
	_, err := c.Do(ctx, Call{Method: http.MethodPut, Path: hostPath(host) + "/status", Query: url.Values{"channel": {s.Channel}}, Body: s, Fresh: fresh, Timeout: 10 * time.Second})
	return err
}

// PostLog sends the log of an attempt, of which the last MaxLog bytes count.
func (c *Client) PostLog(ctx context.Context, host, attempt, channel string, text []byte) error {
	text = text[max(len(text)-MaxLog, 0):]
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
