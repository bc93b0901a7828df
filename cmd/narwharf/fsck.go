package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"narwharf/cache/local"
	"narwharf/cache/upload/fsck"
)

type fsckArgs struct {
	Repair bool `json:"repair"`
}

func fsckCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "fsck [--repair]",
		Short: "check every file of the cache",
		Long: `Reads every NAR and narinfo and checks them: each file's own hash, each narinfo
against its NAR and its references, the index against the files, and that
nothing lies about without an owner. It works beside a running server.

With --repair, damaged files are moved to cache/quarantine in data_dir, so that
the next ` + "`nix copy --refresh`" + ` uploads them again, and the index is put right.

Exit status: 0 clean (or all repaired), 1 damage, 2 it could not look.

    narwharf fsck --config ./data/config.toml`,
		Args: cobra.NoArgs,
	}
	config := configFlag(c)
	repair := c.Flags().Bool("repair", false, "move damaged files to quarantine and put the index right")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return runJob(c, *config, "fsck", fsckArgs{Repair: *repair})
	}
	return c
}

func fsckJob(ctx context.Context, d place, raw json.RawMessage, out io.Writer) (exit int, err error) {
	var args fsckArgs
	if err := json.Unmarshal(raw, &args); err != nil {
		return 2, err
	}
	c := d.cache
	if c == nil {
		var own *local.Store
		if store, err := openStore(d.cfg); err != nil {
			fmt.Fprintln(out, "references that are in the local store alone count as missing:", err)
		} else if store != nil {
			defer store.Close()
			own = local.New(store, nil, "", d.log)
		}
		if c, err = openCache(d.dataDir, own, nil, true); err != nil {
			return 2, err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
	}
	r, err := fsck.Run(ctx, c.uploads, fsck.Options{Repair: args.Repair, Report: func(line string) {
		fmt.Fprintln(out, line) // a reader that left changes nothing about the check
	}})
	if err != nil {
		return 2, fmt.Errorf("fsck: %w", err)
	}
	if r.Damage > 0 {
		return 1, nil
	}
	return 0, nil
}

func rebuildCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rebuild",
		Short: "make the index anew from the files",
		Long: `Reads all narinfo files and makes the index in narwharf.db anew from them. It
works beside a running server: reads go on, uploads wait. If narwharf.db itself
is damaged, stop the server, move the file away and run this.

Not in files, and so not restored: who uploaded a path, the exact time (that of
the file stands in), and, if narwharf.db was moved away, the tokens.`,
		Args: cobra.NoArgs,
	}
	config := configFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return runJob(c, *config, "rebuild", struct{}{})
	}
	return c
}

func rebuildJob(ctx context.Context, d place, _ json.RawMessage, out io.Writer) (exit int, err error) {
	c := d.cache
	if c == nil {
		if c, err = openCache(d.dataDir, nil, nil, false); err != nil {
			return 2, err
		}
		c.consistent = false // until it is made anew
		defer func() { err = errors.Join(err, c.Close()) }()
	}
	report := func(format string, args ...any) {
		fmt.Fprintf(out, format+"\n", args...) // as above
	}
	if err := c.uploads.Rebuild(ctx, report); err != nil {
		return 2, fmt.Errorf("rebuild: %w", err)
	}
	c.consistent = true
	if d.channels == nil {
		if d.channels, err = c.openChannels(nil, nil, prometheus.NewRegistry()); err != nil {
			return 2, fmt.Errorf("rebuild: %w", err)
		}
	}
	channels, releases, err := d.channels.Restore(ctx, report)
	if err != nil {
		return 2, fmt.Errorf("rebuild: %w", err)
	}
	if releases > 0 {
		report("channels restored from their files: %d, with %d releases; hosts report again by themselves", channels, releases)
	}
	return 0, nil
}
