package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/signed"
	"narwharf/cache/state"
	"narwharf/cache/state/admin"
	"narwharf/cache/stored"
	"narwharf/cmd/narwharf/server/token"
	"narwharf/hooks"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/serverconfig"
)

// A job is what a command does to data_dir.
type job func(ctx context.Context, d *DataDir, args json.RawMessage, out io.Writer) (exit int, err error)

// jobs are all jobs by name.
var jobs = map[string]job{
	"token-new":         decoded(onTokens(token.Make)),
	"token-list":        decoded(onTokens(token.List)),
	"token-revoke":      decoded(onTokens(token.Revoke)),
	"token-revoke-rule": decoded(onTokens(token.RevokeRule)),
	"fsck":              decoded(runFsck),
	"rebuild":           decoded(rebuild),
	"export":            decoded(export),
	"snapshot":          decoded(snapshot),
	"freeze": decoded(func(ctx context.Context, d *DataDir, f *state.Freeze, _ io.Writer) (int, error) {
		return 0, d.State.(state.Movable).Freeze(ctx, f)
	}),
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

// onTokens is a job that needs the tokens alone.
func onTokens[A any](run func(ctx context.Context, s token.Store, args A, out io.Writer) (int, error)) func(context.Context, *DataDir, A, io.Writer) (int, error) {
	return func(ctx context.Context, d *DataDir, args A, out io.Writer) (int, error) {
		return run(ctx, d.tokens(), args, out)
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
	ctx = forUser(ctx, os.Getuid())
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

// forUser is a context of changes that a user of this machine makes.
func forUser(ctx context.Context, uid int) context.Context {
	name := fmt.Sprintf("uid %d", uid)
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		name = u.Username
	}
	return audit.For(ctx, api.Actor{Credential: "user", Name: name}, "")
}

// ServeAdmin runs jobs for commands, until it is closed.
func (d *DataDir) ServeAdmin() (*admin.Server, error) {
	on := make(map[string]admin.Job)
	for name, job := range jobs {
		on[name] = func(ctx context.Context, args json.RawMessage, out io.Writer) (int, error) {
			if uid, known := admin.Peer(ctx); known {
				ctx = forUser(ctx, int(uid))
			}
			return job(ctx, d, args, out)
		}
	}
	return admin.Serve(d.Config.DataDir, on, d.log)
}

// whole is the cache and the channels: those of the server, else they are opened until
// done. signing says whether narinfos are to be signed.
func (d *DataDir) whole(out io.Writer, signing bool) (c *stored.Cache, channels *hooks.Server, done func() error, err error) {
	var opened []func() error
	done = func() (err error) {
		for _, end := range slices.Backward(opened) {
			err = errors.Join(err, end())
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, done())
		}
	}()
	if c = d.cache; c == nil {
		from, err := d.openSources(nil, func(err error) error {
			fmt.Fprintln(out, "references that are in the local store alone count as missing:", err)
			return nil
		})
		if err != nil {
			return nil, nil, nil, err
		}
		opened = append(opened, from.Close)
		var signer *signed.Signer
		if signing {
			if signer, err = signed.New(d.Config.ReloadSigners, d.Config.Signing.SignUploads, from.own, from.ups.Keys()...); err != nil {
				return nil, nil, nil, err
			}
		}
		if c, err = d.OpenCache(from.own, from.ups, signer); err != nil {
			return nil, nil, nil, err
		}
		opened = append(opened, func() error { c.Close(); return nil })
		if err := c.Recover(); err != nil {
			return nil, nil, nil, err
		}
	}
	if channels = d.channels; channels == nil {
		if channels, err = d.OpenChannels(c, nil, nil, prometheus.NewRegistry()); err != nil {
			return nil, nil, nil, err
		}
	}
	return c, channels, done, nil
}
