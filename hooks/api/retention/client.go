package retention

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"narwharf/hooks/api"
)

// patience is how long a call may take that reads the whole index.
const patience = 10 * time.Minute

// Client makes the calls.
type Client struct{ *api.Client }

func ask[T any](ctx context.Context, c Client, call api.Call) (v T, err error) {
	a, err := c.Do(ctx, call)
	if err == nil {
		err = a.Decode(&v)
	}
	return v, err
}

func flags(names ...string) url.Values {
	query := url.Values{}
	for _, name := range names {
		if name != "" {
			query.Set(name, "1")
		}
	}
	return query
}

// Plan tells what a collection would do now.
func (c Client) Plan(ctx context.Context, early bool) (*Plan, error) {
	call := api.Call{Method: http.MethodPost, Path: "/api/v1/gc", Query: flags("dry_run"), Timeout: patience}
	if early {
		call.Query.Set("early", "1")
	}
	return ask[*Plan](ctx, c, call)
}

// Collect begins a collection, if none runs.
func (c Client) Collect(ctx context.Context, early bool) (*Status, error) {
	call := api.Call{Method: http.MethodPost, Path: "/api/v1/gc"}
	if early {
		call.Query = flags("early")
	}
	return ask[*Status](ctx, c, call)
}

// Collected waits for the end of a collection; report, which may be nil, is told how far it is.
func (c Client) Collected(ctx context.Context, st *Status, report func(*Running)) (*Result, error) {
	for st.Running != nil {
		if report != nil {
			report(st.Running)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
		next, err := ask[*Status](ctx, c, api.Call{Path: "/api/v1/gc"})
		if e := new(api.Error); errors.As(err, &e) && e.Kind == api.Unavailable {
			continue
		}
		if err != nil {
			return nil, err
		}
		st = next
	}
	return st.Last, nil
}

// Why tells why a path is here, or is not.
func (c Client) Why(ctx context.Context, path string) (*Why, error) {
	return ask[*Why](ctx, c, api.Call{Path: "/api/v1/why", Query: url.Values{"path": {path}}, Timeout: patience})
}

// Usage tells who takes how much, or what the releases of a channel take.
func (c Client) Usage(ctx context.Context, channel string) (*Usage, error) {
	call := api.Call{Path: "/api/v1/du", Timeout: patience}
	if channel != "" {
		call.Query = url.Values{"channel": {channel}}
	}
	return ask[*Usage](ctx, c, call)
}

// Delete deletes a path that nothing keeps.
func (c Client) Delete(ctx context.Context, path string) (*Deleted, error) {
	return ask[*Deleted](ctx, c, api.Call{Method: http.MethodDelete, Path: "/api/v1/paths/" + url.PathEscape(path), Timeout: patience})
}

func pinPath(name string) string { return "/api/v1/pins/" + url.PathEscape(name) }

// Pins lists the pins, by name.
func (c Client) Pins(ctx context.Context) ([]Pin, error) {
	list, err := ask[struct {
		Pins []Pin `json:"pins"`
	}](ctx, c, api.Call{Path: "/api/v1/pins", MaxBody: 256 << 20})
	return list.Pins, err
}

// Pin makes a pin, or replaces the one of that name.
func (c Client) Pin(ctx context.Context, p *Pin) (*Pin, error) {
	return ask[*Pin](ctx, c, api.Call{Method: http.MethodPut, Path: pinPath(p.Name), Body: p, Timeout: patience})
}

// Unpin ends a pin.
func (c Client) Unpin(ctx context.Context, name string) error {
	_, err := c.Do(ctx, api.Call{Method: http.MethodDelete, Path: pinPath(name)})
	return err
}
