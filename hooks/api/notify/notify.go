// Package notify is what goes over the wire about the targets of [[notify]]. Client makes the calls.
package notify

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"narwharf/hooks/api"
)

// Target is a target with what became of what was sent to it since the server started.
type Target struct {
	Name     string   `json:"name"`
	To       string   `json:"to"` // scheme and host of the URL; the rest may be a secret
	Format   string   `json:"format"`
	Events   []string `json:"events"`   // globs of kinds
	Alarms   bool     `json:"alarms"`   // alarms, and what becomes of them
	Channels []string `json:"channels"` // globs; none: all, and what is of no channel

	Queued  int        `json:"queued"`            // events that wait
	Sent    int64      `json:"sent"`              // events that were taken
	Refused int64      `json:"refused"`           // events that the target did not want
	Dropped int64      `json:"dropped"`           // events that waited too long, or were too many
	Failing *time.Time `json:"failing,omitempty"` // since when nothing is taken
	Last    *Attempt   `json:"last,omitempty"`
}

// Attempt is one request to a target, and what came of it.
type Attempt struct {
	At      time.Time `json:"at"`
	Event   int64     `json:"event,omitempty"`  // 0: a test
	Status  int       `json:"status,omitempty"` // of HTTP; 0: there was no answer
	Answer  string    `json:"answer,omitempty"` // the beginning of its body
	Error   string    `json:"error,omitempty"`  // "": it was taken
	Seconds float64   `json:"seconds"`
}

// Client makes the calls.
type Client struct{ *api.Client }

const path = "/api/v1/notify"

// List lists the targets, as they are configured.
func (c Client) List(ctx context.Context) ([]Target, error) {
	a, err := c.Do(ctx, api.Call{Path: path})
	if err != nil {
		return nil, err
	}
	var list struct {
		Targets []Target `json:"targets"`
	}
	return list.Targets, a.Decode(&list)
}

// Test has the server send one event to a target now, and tells what came of it.
func (c Client) Test(ctx context.Context, name, text string) (*Attempt, error) {
	call := api.Call{Method: http.MethodPost, Path: path + "/" + url.PathEscape(name) + "/test"}
	if text != "" {
		call.Body = map[string]string{"text": text}
	}
	a, err := c.Do(ctx, call)
	if err != nil {
		return nil, err
	}
	t := new(Attempt)
	return t, a.Decode(t)
}
