package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos"
	"narwharf/nixos/journal"
	"narwharf/nixos/machine"
)

// Agent makes an agent of the host, as if its process had just started.
func (w *World) Agent(rules machine.Rules) *nixos.Agent {
	foreign := w.Foreign
	if foreign == "" {
		foreign = nixos.ForeignSigned
	}
	return &nixos.Agent{
		Host: w.Host(), Journals: w, Machine: machine.Machine{Rules: rules}, Version: "test", Poll: 45 * time.Second,
		Stager: &nixos.Stager{Host: w.Host(), StoreDir: StoreDir, Foreign: foreign},
		Log:    slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// ErrTurns is that an agent does not settle.
var ErrTurns = errors.New("the agent did not settle")

// Drive runs agents until one is settled: has nothing under way, and has heard
// that the server has nothing new. When a crash point is hit, or is given by
// onCrash, the agent dies, onCrash does what it likes to the world, and the
// next agent starts.
func (w *World) Drive(rules machine.Rules, turns int, onCrash func()) (*journal.Journal, error) {
	var agent *nixos.Agent
	for range turns {
		var settled bool
		err := w.guard(func() error {
			if agent == nil {
				agent = w.Agent(rules)
				if err := agent.Start(context.Background()); err != nil {
					agent = nil
					return err
				}
				return nil
			}
			before := agent.Journal().ETag
			if err := agent.Turn(context.Background()); err != nil {
				return err
			}
			j := agent.Journal()
			settled = j.AtRest() && (w.Wants == nil || before == w.etag()) && j.ETag == before && (!w.reachable() || j.Attempt == nil || j.Attempt.Run == 0 || j.Attempt.LogPosted)
			return nil
		})
		var crash *crashError
		switch {
		case errors.As(err, &crash):
			agent = nil
			if onCrash != nil {
				onCrash()
			}
		case errors.Is(err, journal.ErrNewer):
			return nil, err
		case err != nil:
			w.Clock += 1000 // the real one waits, too
		case settled:
			return agent.Journal(), nil
		}
	}
	state := api.State("?")
	if agent != nil && agent.Journal() != nil {
		state = agent.Journal().State
	}
	return nil, fmt.Errorf("%w in %d turns: it is %s", ErrTurns, turns, state)
}

type crashError struct{ at int }

func (e *crashError) Error() string { return fmt.Sprintf("killed at op %d", e.at) }

// guard turns the panic of a crash point into an error.
func (w *World) guard(f func() error) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case Crash:
			err = &crashError{p.At}
		default:
			panic(p)
		}
	}()
	return f()
}
