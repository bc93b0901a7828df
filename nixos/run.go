package nixos

import (
	"context"
	"errors"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/journal"
)

// ErrRestart is that the agent should be started again: its unit is another.
var ErrRestart = errors.New("the agent's own unit was changed")

// Run follows the channel until ctx ends. changed tells whether the agent should be
// started anew; it is asked only when nothing is under way.
func (a *Agent) Run(ctx context.Context, changed func(context.Context) bool) error {
	if err := a.Start(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if changed != nil && a.journal.AtRest() && changed(ctx) {
			return ErrRestart
		}
		a.turn(ctx)
	}
	return nil
}

// turn is Turn, with a pause after what should not happen: a journal that
// cannot be written, a /run that cannot be read.
func (a *Agent) turn(ctx context.Context) {
	if err := a.Turn(ctx); err != nil && ctx.Err() == nil {
		a.Log.Error("no step further", "phase", a.phase(), "error", err)
		a.pause(ctx, 5*time.Second)
	}
}

func (a *Agent) phase() journal.Phase {
	if t := a.journal.Attempt; t != nil {
		return t.Phase
	}
	return ""
}

// ErrNotSettled is that ctx ended before the host was at rest.
var ErrNotSettled = errors.New("the host is not done yet")

// Once runs until the server has answered and nothing is under way.
func (a *Agent) Once(ctx context.Context) (api.State, error) {
	if err := a.Start(ctx); err != nil {
		return api.Failed, err
	}
	for ctx.Err() == nil {
		if a.answered && a.journal.AtRest() {
			a.postLog(ctx)
			return a.journal.State, nil
		}
		a.turn(ctx)
	}
	return a.journal.State, ErrNotSettled
}
