package remote

import (
	"context"
	"errors"

	"narwharf/hooks/api"
	"narwharf/nixos/effect"
)

// Confirm sends a status that confirms a system, over a connection of its own, as the
// agent of that system does. Outcome says what its error means.
func Confirm(ctx context.Context, client *api.Client, host string, status *api.Status) error {
	return client.PutStatus(ctx, host, status, true)
}

// Outcome is what a confirmation came to that ended with err.
func Outcome(err error) effect.ProbeOutcome {
	var refused *api.Error
	switch {
	case err == nil:
		return effect.ProbeOK
	case errors.As(err, &refused) && refused.Status < 500:
		return effect.ProbeRefused
	}
	return effect.ProbeUnreachable
}
