package audit

import (
	"context"
	"net/netip"

	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
)

// An origin is for whom something is done.
type origin struct {
	actor   api.Actor
	request string
}

type originKey struct{}

// For is a context in which changes are made for somebody, by a request of that id. Note
// puts both into the lines of their transactions.
func For(ctx context.Context, actor api.Actor, request string) context.Context {
	actor.Subject = clip.Line(actor.Subject, maxSubject)
	if a, err := netip.ParseAddr(actor.Address); err == nil {
		actor.Address = a.Unmap().WithZone("").String()
	}
	return context.WithValue(ctx, originKey{}, &origin{actor, request})
}

const maxSubject = 128

// sign says in a line for whom it is.
func sign(ctx context.Context, e *api.Event) {
	if o, ok := ctx.Value(originKey{}).(*origin); ok {
		e.Actor, e.Request = &o.actor, o.request
	}
}
