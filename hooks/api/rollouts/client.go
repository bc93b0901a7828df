package rollouts

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
)

// Client makes the calls.
type Client struct{ *api.Client }

func ask[T any](ctx context.Context, c Client, call api.Call) (v T, err error) {
	a, err := c.Do(ctx, call)
	if err == nil && a.Status != http.StatusNoContent {
		err = a.Decode(&v)
	}
	return v, err
}

func path(parts ...string) string {
	p := "/api/v1"
	for _, part := range parts {
		p += "/" + url.PathEscape(part)
	}
	return p
}

// List is the present roll-outs, of one channel alone if that is not "".
func (c Client) List(ctx context.Context, channel string) ([]rollout.Summary, error) {
	call := api.Call{Path: path("rollouts"), MaxBody: 256 << 20}
	if channel != "" {
		call.Query = url.Values{"channel": {channel}}
	}
	list, err := ask[struct {
		Rollouts []rollout.Summary `json:"rollouts"`
	}](ctx, c, call)
	return list.Rollouts, err
}

// Show is a roll-out of a channel, the present one if seq is 0. With the ETag of an earlier answer
// it parks for up to wait, and is api.ErrNotModified when that is over.
func (c Client) Show(ctx context.Context, channel string, seq int64, etag string, wait time.Duration) (*rollout.Summary, string, error) {
	call := api.Call{Path: path("rollouts", channel)}
	if seq != 0 {
		call.Path = path("rollouts", channel, strconv.FormatInt(seq, 10))
	}
	if etag != "" {
		call.IfNoneMatch, call.Wait = etag, wait
	}
	a, err := c.Do(ctx, call)
	switch {
	case err != nil:
		return nil, "", err
	case a.Status == http.StatusNotModified:
		return nil, etag, api.ErrNotModified
	}
	s := new(rollout.Summary)
	return s, a.ETag, a.Decode(s)
}

// Say says a verb of a roll-out that was at rev; 0: at whichever it is.
func (c Client) Say(ctx context.Context, channel, verb string, rev int64, v *Verb) (*rollout.Summary, error) {
	call := api.Call{Method: http.MethodPost, Path: path("rollouts", channel, verb), Body: v}
	if rev != 0 {
		call.IfMatch = fmt.Sprintf("%q", strconv.FormatInt(rev, 10))
	}
	return ask[*rollout.Summary](ctx, c, call)
}

// Budgets are all, by name.
func (c Client) Budgets(ctx context.Context) ([]Budget, error) {
	list, err := ask[struct {
		Budgets []Budget `json:"budgets"`
	}](ctx, c, api.Call{Path: path("budgets")})
	return list.Budgets, err
}

// SetBudget makes a budget, or replaces the one of that name.
func (c Client) SetBudget(ctx context.Context, name string, b *rollout.Budget) (*Budget, error) {
	return ask[*Budget](ctx, c, api.Call{Method: http.MethodPut, Path: path("budgets", name), Body: b})
}

// Holds are all, by name.
func (c Client) Holds(ctx context.Context) ([]Hold, error) {
	list, err := ask[struct {
		Holds []Hold `json:"holds"`
	}](ctx, c, api.Call{Path: path("holds")})
	return list.Holds, err
}

// SetHold makes a hold, or replaces the one of that name.
func (c Client) SetHold(ctx context.Context, name string, h *rollout.Hold) (*Hold, error) {
	return ask[*Hold](ctx, c, api.Call{Method: http.MethodPut, Path: path("holds", name), Body: h})
}

// Remove takes away what is at a path: a budget, a hold, a quarantine.
func (c Client) Remove(ctx context.Context, what, name string) error {
	_, err := c.Do(ctx, api.Call{Method: http.MethodDelete, Path: path(what, name)})
	return err
}

// Quarantined are the systems that are given to nobody.
func (c Client) Quarantined(ctx context.Context) ([]rollout.Quarantine, error) {
	list, err := ask[struct {
		Quarantined []rollout.Quarantine `json:"quarantined"`
	}](ctx, c, api.Call{Path: path("quarantine")})
	return list.Quarantined, err
}

// Frozen tells whether there is a freeze.
func (c Client) Frozen(ctx context.Context) (*Freeze, error) {
	return ask[*Freeze](ctx, c, api.Call{Path: path("freeze")})
}

// Freeze lets nobody begin with anything, on any channel; nil ends it.
func (c Client) Freeze(ctx context.Context, h *rollout.Hold) (*Freeze, error) {
	if h == nil {
		return ask[*Freeze](ctx, c, api.Call{Method: http.MethodDelete, Path: path("freeze")})
	}
	return ask[*Freeze](ctx, c, api.Call{Method: http.MethodPut, Path: path("freeze"), Body: h})
}
