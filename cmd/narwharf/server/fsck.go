package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/state"
	"narwharf/cache/upload/fsck"
	"narwharf/cmd/narwharf/server/storage"
	"narwharf/narinfo"
	"narwharf/narinfo/clip"
)

// FsckArgs are what fsck is asked to do.
type FsckArgs struct {
	Repair bool `json:"repair"`
	Anew   bool `json:"anew,omitempty"` // not on from where the last one was stopped
	JSON   bool `json:"json,omitempty"` // a line of JSON for each finding, and for the sum
}

// fsckPosition is where an fsck that was stopped is kept.
const (
	fsckBucket   = "cache/fsck"
	fsckPosition = "position"
)

func runFsck(ctx context.Context, d *DataDir, args FsckArgs, out io.Writer) (exit int, err error) {
	text := out
	if args.JSON {
		text = io.Discard
	}
	c, channels, done, err := d.whole(text, false)
	if err != nil {
		return 2, err
	}
	defer func() { err = errors.Join(err, done()) }()
	needs, err := channels.Fleet.Needs()
	if err != nil {
		return 2, err
	}
	opts := fsck.Options{
		Repair: args.Repair,
		Needed: func(p narinfo.Path) []string { return needs[p] },
		Report: func(line string) { fmt.Fprintln(text, clip.Line(line, 4<<10)) }, // a reader that left changes nothing about the check
		Save:   d.saveFsck,
	}
	if !args.Anew {
		if opts.From, err = d.stoppedFsck(ctx); err != nil {
			return 2, err
		}
	}
	if args.JSON {
		lines := json.NewEncoder(out)
		opts.Found = func(f fsck.Finding) { _ = lines.Encode(f) } // as above
	}
	if c.Local != nil || c.Upstreams != nil {
		opts.Fetch = c.Fetch
	}
	r, err := fsck.Run(ctx, c.Uploads, opts)
	for name, paths := range r.Lost {
		err = errors.Join(err, channels.Fleet.Lost(context.WithoutCancel(ctx), name, paths))
	}
	if err != nil {
		return 2, fmt.Errorf("fsck: %w", err)
	}
	if args.JSON {
		if err := json.NewEncoder(out).Encode(r); err != nil {
			return 2, err
		}
	}
	if r.Damage > 0 {
		return 1, nil
	}
	return 0, nil
}

// saveFsck keeps how far an fsck has come, nil for one that has ended.
func (d *DataDir) saveFsck(p *fsck.Position) error {
	return d.State.Update(context.Background(), []string{fsckBucket}, func(tx state.Tx) error {
		if p == nil {
			return tx.Delete(fsckBucket, fsckPosition)
		}
		return state.PutJSON(tx, fsckBucket, fsckPosition, p)
	})
}

// stoppedFsck is where the last fsck was stopped, nil if it was not.
func (d *DataDir) stoppedFsck(ctx context.Context) (p *fsck.Position, err error) {
	err = d.State.View(ctx, func(tx state.Reader) error {
		p, err = state.GetJSON[fsck.Position](tx, fsckBucket, fsckPosition)
		return err
	})
	return p, err
}

// RebuildArgs are what rebuild is asked to do.
type RebuildArgs struct {
	JSON bool `json:"json,omitempty"`
}

// Rebuilt is what rebuild did, as JSON.
type Rebuilt struct {
	Lost     int64    `json:"lost"`     // paths whose NAR is gone
	Channels int      `json:"channels"` // that were restored from their files
	Releases int      `json:"releases"`
	Lines    []string `json:"lines"` // what it says to people
}

func rebuild(ctx context.Context, d *DataDir, args RebuildArgs, out io.Writer) (exit int, err error) {
	if err := storage.Alone(ctx, d.Config, d.State, "rebuild"); err != nil {
		return 2, err
	}
	c := d.cache
	if c == nil {
		if c, err = d.OpenCache(nil, nil, nil); err != nil {
			return 2, err
		}
		defer c.Close()
	}
	all := Rebuilt{Lines: []string{}}
	report := func(format string, args ...any) {
		line := clip.Line(fmt.Sprintf(format, args...), 4<<10)
		all.Lines = append(all.Lines, line)
		fmt.Fprintln(out, line) // as above
	}
	if args.JSON {
		text := out
		out = io.Discard
		defer func() {
			if err == nil {
				err = json.NewEncoder(text).Encode(all)
			}
		}()
	}
	if all.Lost, err = c.Rebuild(ctx, report); err != nil {
		return 2, fmt.Errorf("rebuild: %w", err)
	}
	channels := d.channels
	if channels == nil {
		if channels, err = d.OpenChannels(c, nil, nil, prometheus.NewRegistry()); err != nil {
			return 2, fmt.Errorf("rebuild: %w", err)
		}
	}
	if all.Channels, all.Releases, err = channels.Restore(ctx, report); err != nil {
		return 2, fmt.Errorf("rebuild: %w", err)
	}
	if all.Releases > 0 {
		report("channels restored from their files: %d, with %d releases; hosts report again by themselves", all.Channels, all.Releases)
	}
	if all.Lost > 0 {
		return 1, nil
	}
	return 0, nil
}
