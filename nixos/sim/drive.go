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
		Stager: &nixos.Stager{Host: w.Host(), StoreDir: StoreDir, Foreign: foreign, Downloads: w.Downloads},
		Log:    slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// ErrTurns is that an agent does not come to rest.
var ErrTurns = errors.New("the agent did not come to rest")

// Drive runs agents until one is at rest, and has heard that the server has
// nothing new. When a crash point is hit the agent dies, onCrash does what it
// likes to the world, and the next agent starts.
func (w *World) Drive(rules machine.Rules, turns int, onCrash func()) (*journal.Journal, error) {
	var agent *nixos.Agent
	for range turns {
		var rests bool
		err := w.guard(func() (err error) {
			if agent == nil {
				started := w.Agent(rules)
				if err = started.Start(context.Background()); err == nil {
					agent = started
				}
				return err
			}
			rests, err = w.turn(agent)
			return err
		})
		var crash Crash
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
		case rests:
			return agent.Journal(), nil
		}
	}
	state := api.State("?")
	if agent != nil && agent.Journal() != nil {
		state = agent.Journal().State
	}
	return nil, fmt.Errorf("%w in %d turns: it is %s", ErrTurns, turns, state)
}

// turn carries out one effect, and tells whether the agent rests now, and has
// heard that the server has nothing new, and has sent its log.
func (w *World) turn(agent *nixos.Agent) (rests bool, err error) {
	before := agent.Journal().ETag
	if err := agent.Turn(context.Background()); err != nil {
		return false, err
	}
	j := agent.Journal()
	current := j.ETag == before && (w.Wants == nil || before == w.etag())
	logged := !w.reachable() || j.Attempt == nil || j.Attempt.Run == 0 || j.Attempt.LogPosted
	return j.AtRest() && current && logged, nil
}

// guard turns the panic of a crash point into an error.
func (w *World) guard(f func() error) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case Crash:
			err = p
		default:
			panic(p)
		}
	}()
	return f()
}
