package server

import (
	"context"

	"narwharf/hooks/api"
	"narwharf/hooks/exchange"
)

// judge is whoever knows what JWTs give, nil where nothing is served.
func (d *DataDir) judge() exchange.Judge {
	if d.issuers == nil {
		return nil
	}
	return d.issuers
}

// note adds a line to the audit log of what is served.
func (d *DataDir) note(ctx context.Context, e api.Event) error { return d.channels.Retain.Note(ctx, e) }
