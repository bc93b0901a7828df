package audit

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
)

const (
	refusalPause = time.Hour // in which a token's refusal at a route is noted once
	maxRefusals  = 100       // lines in that time, of all tokens
)

// Refusals notes what tokens of this server were refused, good ones and those that are
// revoked or expired: whoever still holds one of those is worth a look. What an agent is
// refused with every poll is one line in an hour, and all tokens together make a hundred.
type Refusals struct {
	set   *mirror.Set
	clock func() time.Time
	log   *slog.Logger

	mu    sync.Mutex
	since time.Time       // beginning of the hour
	noted map[string]bool // in it, by token and route
}

// NewRefusals notes in the log of a set.
func NewRefusals(set *mirror.Set, clock func() time.Time, log *slog.Logger) *Refusals {
	return &Refusals{set: set, clock: clock, log: log, noted: make(map[string]bool)}
}

// Note notes that a token, known by its id, was refused at a route, and in which words. ctx says
// who has it (For); that the request ends does not matter.
func (r *Refusals) Note(ctx context.Context, token, route, text string) {
	if !r.due(token + " " + route) {
		return
	}
	err := r.set.Update(context.WithoutCancel(ctx), nil, func(tx *mirror.Tx) error {
		Note(tx, api.Event{Kind: "access.denied", Text: "refused: " + text, Data: map[string]string{"route": route}})
		return nil
	})
	if err != nil {
		r.log.Error("a refusal is not in the audit log", "token", token, "route", route, "error", err)
	}
}

// due tells whether a refusal is to be noted, and takes it for noted then.
func (r *Refusals) due(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.clock(); now.Sub(r.since) >= refusalPause || now.Before(r.since) {
		r.since = now
		clear(r.noted)
	}
	if len(r.noted) >= maxRefusals || r.noted[key] {
		return false
	}
	r.noted[key] = true
	return true
}
