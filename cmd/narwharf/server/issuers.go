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

// tell raises an alarm of what is served, or ends it.
func (d *DataDir) tell(ctx context.Context, e api.Event) error { return d.channels.Alarms.Tell(ctx, e) }
