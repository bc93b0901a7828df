// Package alarm is what goes over the wire about alarms. Client makes the calls.
package alarm

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"narwharf/hooks/api"
)

// Alarm is what somebody has to look at. One is open for a kind and a subject at a time, however
// many events tell of it.
type Alarm struct {
	ID      int64  `json:"id"`      // of the event that opened it
	Kind    string `json:"kind"`    // of its events: docs/runbook.md has an entry for each
	Subject string `json:"subject"` // a host, a channel, an issuer, a file, a target of notify; "": the server
	Channel string `json:"channel,omitempty"`
	Host    string `json:"host,omitempty"`
	Seq     int64  `json:"seq,omitempty"`
	Text    string `json:"text"` // of the last event

	Opened time.Time `json:"opened"`
	Last   time.Time `json:"last"`  // time of the last event
	Count  int       `json:"count"` // of events

	Taken  *Act `json:"taken,omitempty"`  // who looks after it
	Closed *Act `json:"closed,omitempty"` // nil: it is open
}

// Act is who took or closed an alarm. By is empty where an event has ended it.
type Act struct {
	By     string    `json:"by,omitempty"`
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"`
	Event  int64     `json:"event,omitempty"` // that ended it
}

// Query says which alarms are meant.
type Query struct {
	Channel string // "": of all
	Closed  bool   // the last that were closed, in place of those that are open
}

// Client makes the calls.
type Client struct{ *api.Client }

func ask[T any](ctx context.Context, c Client, call api.Call) (v T, err error) {
	a, err := c.Do(ctx, call)
	if err == nil {
		err = a.Decode(&v)
	}
	return v, err
}

const path = "/api/v1/alarms"

// List lists alarms, the newest first.
func (c Client) List(ctx context.Context, q Query) ([]Alarm, error) {
	query := url.Values{}
	if q.Channel != "" {
		query.Set("channel", q.Channel)
	}
	if q.Closed {
		query.Set("closed", "1")
	}
	list, err := ask[struct {
		Alarms []Alarm `json:"alarms"`
	}](ctx, c, api.Call{Path: path, Query: query, MaxBody: 64 << 20})
	return list.Alarms, err
}

// Take says that the caller looks after an alarm. Who had it before has it no more.
func (c Client) Take(ctx context.Context, id int64, reason string) (*Alarm, error) {
	return c.act(ctx, id, "take", reason)
}

// Close says that nobody has to look after an alarm any more.
func (c Client) Close(ctx context.Context, id int64, reason string) (*Alarm, error) {
	return c.act(ctx, id, "close", reason)
}

func (c Client) act(ctx context.Context, id int64, verb, reason string) (*Alarm, error) {
	call := api.Call{Method: http.MethodPost, Path: fmt.Sprintf("%s/%d/%s", path, id, verb)}
	if reason != "" {
		call.Body = map[string]string{"reason": reason}
	}
	return ask[*Alarm](ctx, c, call)
}
