package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cache"
	"narwharf/cache/state"
	"narwharf/cache/state/admin"
	"narwharf/hooks"
	"narwharf/hooks/serverconfig"
)

// A job is what a command does to data_dir.
type job func(ctx context.Context, d place, args json.RawMessage, out io.Writer) (exit int, err error)

// place is where a job runs: an open data_dir, and what a server has open of it.
type place struct {
	*dataDir
	cache    *cache.Stored //  nil outside of a server: the job opens it
	channels *hooks.Server // likewise
}

// jobs are all jobs by name.
var jobs = map[string]job{
	"token-new":    decoded(tokenNew),
	"token-list":   decoded(tokenList),
	"token-revoke": decoded(tokenRevoke),
	"fsck":         decoded(fsckJob),
	"rebuild":      decoded(rebuildJob),
}

// decoded is a job whose arguments are an A.
func decoded[A any](run func(ctx context.Context, d place, args A, out io.Writer) (int, error)) job {
	return func(ctx context.Context, d place, raw json.RawMessage, out io.Writer) (int, error) {
		var args A
		if err := json.Unmarshal(raw, &args); err != nil {
			return 2, err
		}
		return run(ctx, d, args, out)
	}
}

// startPatience is how long a command waits for a server that is starting: one
// that was killed makes its index agree with the files first.
const startPatience = 30 * time.Second

// runJob runs a job wherever data_dir is open: in the server that has it, else here.
func runJob(c *cobra.Command, configPath, name string, args any) error {
	cfg, err := serverconfig.Load(configPath)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(args)
	if err != nil {
		return err
	}
	ctx, out := c.Context(), c.OutOrStdout()
	log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	for begun := time.Now(); ; {
		conn, err := admin.Dial(cfg.DataDir)
		if err == nil {
			return ended(admin.Run(ctx, conn, name, raw, out))
		}
		if !errors.Is(err, admin.ErrNobody) {
			return fmt.Errorf("ask the running server: %w", err)
		}
		d, err := openDataDir(cfg, log)
		// A server that has data_dir open and no socket yet is just starting.
		if errors.Is(err, state.ErrInUse) && time.Since(begun) < startPatience && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
		exit, err := jobs[name](ctx, place{dataDir: d}, raw, out)
		return ended(exit, errors.Join(err, d.Close()))
	}
}

// ended is what a job's end is for the command.
func ended(exit int, err error) error {
	if err == nil && exit != 0 {
		return exitError{code: exit}
	}
	return err
}

// serveAdmin runs jobs for commands, until it is closed.
func serveAdmin(d place) (*admin.Server, error) {
	on := make(map[string]admin.Job)
	for name, job := range jobs {
		on[name] = func(ctx context.Context, args json.RawMessage, out io.Writer) (int, error) {
			return job(ctx, d, args, out)
		}
	}
	return admin.Serve(d.cfg.DataDir, on, d.log)
}
