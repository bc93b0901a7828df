package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/local"
	"narwharf/cache/local/compress"
	"narwharf/cache/state"
	"narwharf/cache/state/admin"
	"narwharf/cache/upload/fsck"
	"narwharf/hooks/serverconfig"
	"narwharf/narinfo"
	"narwharf/narinfo/clip"
)

// A job is what a command does to data_dir.
type job func(ctx context.Context, d *DataDir, args json.RawMessage, out io.Writer) (exit int, err error)

// jobs are all jobs by name.
var jobs = map[string]job{
	"token-new":    decoded(tokenNew),
	"token-list":   decoded(tokenList),
	"token-revoke": decoded(tokenRevoke),
	"fsck":         decoded(runFsck),
	"rebuild":      decoded(rebuild),
}

// decoded is a job whose arguments are an A.
func decoded[A any](run func(ctx context.Context, d *DataDir, args A, out io.Writer) (int, error)) job {
	return func(ctx context.Context, d *DataDir, raw json.RawMessage, out io.Writer) (int, error) {
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

// RunJob runs a job wherever data_dir is open: in the server that has it, else here.
func RunJob(ctx context.Context, cfg *serverconfig.Config, version, name string, args any, out io.Writer, log *slog.Logger) (exit int, err error) {
	raw, err := json.Marshal(args)
	if err != nil {
		return 2, err
	}
	for begun := time.Now(); ; {
		conn, err := admin.Dial(cfg.DataDir)
		if err == nil {
			return admin.Run(ctx, conn, name, raw, out)
		}
		if !errors.Is(err, admin.ErrNobody) {
			return 2, fmt.Errorf("ask the running server: %w", err)
		}
		d, err := Open(cfg, version, log)
		// A server that has data_dir open and no socket yet is just starting.
		if errors.Is(err, state.ErrInUse) && time.Since(begun) < startPatience && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return 2, err
		}
		exit, err := jobs[name](ctx, d, raw, out)
		return exit, errors.Join(err, d.Close())
	}
}

// ServeAdmin runs jobs for commands, until it is closed.
func (d *DataDir) ServeAdmin() (*admin.Server, error) {
	on := make(map[string]admin.Job)
	for name, job := range jobs {
		on[name] = func(ctx context.Context, args json.RawMessage, out io.Writer) (int, error) {
			return job(ctx, d, args, out)
		}
	}
	return admin.Serve(d.Config.DataDir, on, d.log)
}

// FsckArgs are what fsck is asked to do.
type FsckArgs struct {
	Repair bool `json:"repair"`
}

func runFsck(ctx context.Context, d *DataDir, args FsckArgs, out io.Writer) (exit int, err error) {
	c := d.cache
	if c == nil {
		var own *local.Store
		if store, err := openStore(d.Config); err != nil {
			fmt.Fprintln(out, "references that are in the local store alone count as missing:", err)
		} else if store != nil {
			defer store.Close()
			var packed *compress.Store
			if packed, err = d.openPacked(nil); err != nil {
				return 2, err
			}
			defer func() { err = errors.Join(err, packed.Close()) }()
			own = local.New(store, packed, "", d.log)
		}
		if c, err = d.OpenCache(own, nil); err != nil {
			return 2, err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		if err := c.Recover(); err != nil {
			return 2, err
		}
	}
	channels := d.channels
	if channels == nil {
		if channels, err = d.OpenChannels(c, nil, nil, prometheus.NewRegistry()); err != nil {
			return 2, err
		}
	}
	needs, err := channels.Fleet.Needs()
	if err != nil {
		return 2, err
	}
	opts := fsck.Options{
		Repair: args.Repair,
		Needed: func(p narinfo.Path) []string { return needs[p] },
		Report: func(line string) { fmt.Fprintln(out, clip.Line(line, 4<<10)) }, // a reader that left changes nothing about the check
	}
	if c.Local != nil {
		opts.Fetch = c.Fetch
	}
	r, err := fsck.Run(ctx, c.Uploads, opts)
	for name, paths := range r.Lost {
		err = errors.Join(err, channels.Fleet.Lost(context.WithoutCancel(ctx), name, paths))
	}
	if err != nil {
		return 2, fmt.Errorf("fsck: %w", err)
	}
	if r.Damage > 0 {
		return 1, nil
	}
	return 0, nil
}

func rebuild(ctx context.Context, d *DataDir, _ struct{}, out io.Writer) (exit int, err error) {
	c := d.cache
	if c == nil {
		if c, err = d.OpenCache(nil, nil); err != nil {
			return 2, err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
	}
	report := func(format string, args ...any) {
		fmt.Fprintln(out, clip.Line(fmt.Sprintf(format, args...), 4<<10)) // as above
	}
	if err := c.Rebuild(ctx, report); err != nil {
		return 2, fmt.Errorf("rebuild: %w", err)
	}
	channels := d.channels
	if channels == nil {
		if channels, err = d.OpenChannels(c, nil, nil, prometheus.NewRegistry()); err != nil {
			return 2, fmt.Errorf("rebuild: %w", err)
		}
	}
	restored, releases, err := channels.Restore(ctx, report)
	if err != nil {
		return 2, fmt.Errorf("rebuild: %w", err)
	}
	if releases > 0 {
		report("channels restored from their files: %d, with %d releases; hosts report again by themselves", restored, releases)
	}
	return 0, nil
}
