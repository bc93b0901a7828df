// Package replica is what goes over the wire about the servers that share a state. Client makes
// the call.
package replica

import (
	"context"
	"time"

	"narwharf/hooks/api"
)

// Replica is one server.
type Replica struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"` // machine and port
	Version string    `json:"version"`
	Since   time.Time `json:"since"` // its start
	Heard   time.Time `json:"heard"` // when it was heard of last
	Silent  bool      `json:"silent"`
	LagMS   int64     `json:"lag_ms"`   // how late it has heard of the last change of another, in milliseconds
	ClockMS int64     `json:"clock_ms"` // by how much its clock is behind that of the database, in milliseconds
	Does    []string  `json:"does"`     // what one server at a time does, and this one now
	Differs []string  `json:"differs"`  // what of its configuration is not as that of the server that answers
	Self    bool      `json:"self"`     // it is the server that answers
}

// Client makes the call.
type Client struct{ *api.Client }

// List lists the servers that share the state, by name. A server by itself has none.
func (c Client) List(ctx context.Context) ([]Replica, error) {
	a, err := c.Do(ctx, api.Call{Path: "/api/v1/replicas"})
	if err != nil {
		return nil, err
	}
	var list struct {
		Replicas []Replica `json:"replicas"`
	}
	return list.Replicas, a.Decode(&list)
}
