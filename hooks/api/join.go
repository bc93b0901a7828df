package api

import (
	"context"
	"net/http"
)

// Join is the body of POST /api/v1/join, with a join token: a machine becomes a
// host of a channel.
type Join struct {
	Host     string `json:"host"`
	Channel  string `json:"channel"`
	Instance string `json:"instance"` // as in Status
	Machine  string `json:"machine,omitempty"`
}

// Joined is the answer, 201.
type Joined struct {
	Host    string `json:"host"`
	Channel string `json:"channel"`
	// Token is the host's own from now on. It cannot be had again, but for some
	// minutes by the same machine in the same way, after which this one is void.
	Token string `json:"token"`
}

// Join exchanges the join token that the client has for the host's own token.
func (c *Client) Join(ctx context.Context, host, channel string) (*Joined, error) {
	a, err := c.Do(ctx, Call{Method: http.MethodPost, Path: "/api/v1/join",
		Body: &Join{Host: host, Channel: channel, Instance: c.self.Instance, Machine: c.self.Machine}})
	if err != nil {
		return nil, err
	}
	j := new(Joined)
	if err := a.Decode(j); err != nil {
		return nil, err
	}
	return j, nil
}
