// Package gate is what goes over the wire about what a change has to pass: the checks that are
// asked while a wave bakes, and reboot slots. Client makes the calls.
package gate

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"narwharf/hooks/api"
)

// Check is one of the server's configuration.
type Check struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"` // "prometheus", "url" or "command"
	Asks      string `json:"asks"` // for people, in a line
	IntervalS int64  `json:"interval_s"`
	TimeoutS  int64  `json:"timeout_s"`
	Failures  int    `json:"failures"` // how many times in a row it has to say no
}

// Answer is what a check says.
type Answer struct {
	Check   string `json:"check"`
	Said    string `json:"said"` // "yes", "no" or "no answer"
	Detail  string `json:"detail,omitempty"`
	TookMS  int64  `json:"took_ms"`
	Channel string `json:"channel,omitempty"` // of which it was asked
	Seq     int64  `json:"seq,omitempty"`
}

// Slot is a reboot slot with its holder: a host, or a machine that is none.
type Slot struct {
	Group   string    `json:"group"`
	Limit   int       `json:"limit,omitempty"` // of the group, as its holder's channel has it; 0: none
	Host    string    `json:"host,omitempty"`
	ID      string    `json:"id,omitempty"` // of a machine that asked by FleetLock
	Channel string    `json:"channel,omitempty"`
	Seq     int64     `json:"seq,omitempty"`
	Granted time.Time `json:"granted"`
	Overdue bool      `json:"overdue,omitempty"` // the alarm was raised
	By      string    `json:"by,omitempty"`      // the credential that an ID took it with
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

// Checks lists the checks, by name.
func (c Client) Checks(ctx context.Context) ([]Check, error) {
	list, err := ask[struct {
		Checks []Check `json:"checks"`
	}](ctx, c, api.Call{Path: "/api/v1/checks"})
	return list.Checks, err
}

// patience is how long a check may take, and a little more.
const patience = time.Hour + time.Minute

// Ask has the server ask a check now, of the current release of a channel if one is named.
func (c Client) Ask(ctx context.Context, name, channel string) (*Answer, error) {
	call := api.Call{Method: http.MethodPost, Path: "/api/v1/checks/" + url.PathEscape(name), Timeout: patience}
	if channel != "" {
		call.Query = url.Values{"channel": {channel}}
	}
	return ask[*Answer](ctx, c, call)
}

// Slots lists the slots that are held, by group.
func (c Client) Slots(ctx context.Context) ([]Slot, error) {
	list, err := ask[struct {
		Slots []Slot `json:"slots"`
	}](ctx, c, api.Call{Path: "/api/v1/reboots"})
	return list.Slots, err
}

// Free takes the slot of a machine that is no host.
func (c Client) Free(ctx context.Context, group, id string) error {
	_, err := c.Do(ctx, api.Call{Method: http.MethodDelete, Path: "/api/v1/reboots/" + url.PathEscape(group) + "/" + url.PathEscape(id)})
	return err
}
