package upstream

import (
	"context"
	"time"

	"narwharf/cache/upstream/via"
)

// came is how a request came to us.
type came struct {
	via     []string // the entries of caches like us, oldest first
	ownOnly bool
}

type cameKey struct{}

func cameBy(ctx context.Context) came {
	c, _ := ctx.Value(cameKey{}).(came)
	return c
}

// Came notes by which caches a request has come, from its Via. answer is what the reply says in the same
// header, "" if the request came by none.
func (us *Upstreams) Came(ctx context.Context, values []string) (_ context.Context, answer string) {
	if us == nil || len(values) == 0 {
		return ctx, ""
	}
	c := came{via: via.Entries(values)}
	if len(c.via) == 0 {
		return ctx, ""
	}
	c.ownOnly = len(c.via) >= via.MaxHops || via.Has(c.via, us.id)
	return context.WithValue(ctx, cameKey{}, c), via.Text(nil, us.id)
}

type patientKey struct{}

// Patient gives lookups of a context, which nobody waits for, more time: a line may be slow and full.
func Patient(ctx context.Context) context.Context { return context.WithValue(ctx, patientKey{}, true) }

// lookupTime is how long a lookup may take, patientTime one of the background.
const (
	lookupTime  = 2 * time.Second
	patientTime = 30 * time.Second
)

func timeFor(ctx context.Context) time.Duration {
	if ctx.Value(patientKey{}) != nil {
		return patientTime
	}
	return lookupTime
}
