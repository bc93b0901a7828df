package linux

import (
	"context"
	"log/slog"
	"os"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos"
	"narwharf/nixos/config"
)

// Options are of an agent on this machine.
type Options struct {
	Config  *config.Config
	Version string
	Log     *slog.Logger
}

// with has a host as long as do takes.
func (o Options) with(ctx context.Context, do func(*Host) error) error {
	client, err := NewClient(ctx, o.Config, o.Version, o.Log)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	host, err := New(o.Config, client, program, o.Log)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		host.Close(ctx)
	}()
	return do(host)
}

// Run is `narwharf agent run`: it follows the channel until ctx ends, or nixos.ErrRestart.
// While another agent runs here, it waits.
func Run(ctx context.Context, o Options) error {
	return o.with(ctx, func(h *Host) error {
		release, err := awaitAgent(ctx, o.Config.StateDir, o.Log)
		if err != nil {
			return err
		}
		defer release()
		h.sweep()
		return h.Agent(o.Version).Run(ctx, h.unitChanged)
	})
}

// Once is `narwharf agent once`: it does what the channel says now, and says in which state
// the host ended and why. The error is ErrAnotherAgent where an agent runs, and
// nixos.ErrNotSettled or remote.ErrNotJoined where ctx was over before.
func Once(ctx context.Context, o Options) (state api.State, why string, err error) {
	err = o.with(ctx, func(h *Host) error {
		release, err := lockAgent(o.Config.StateDir)
		if err != nil {
			return err
		}
		defer release()
		h.sweep()
		a := h.Agent(o.Version)
		if state, err = a.Once(ctx); err == nil {
			why = a.Journal().Error
		}
		return err
	})
	return state, why, err
}

// DryRun is `narwharf agent once --dry-run`: it says what Once would do. Another agent may
// be running.
func DryRun(ctx context.Context, o Options) (plan *nixos.Plan, err error) {
	err = o.with(ctx, func(h *Host) error {
		plan, err = h.Agent(o.Version).DryRun(ctx)
		return err
	})
	return plan, err
}
