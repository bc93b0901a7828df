package main

import (
	"context"
	"errors"
	"fmt"
	"io"

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

func fsckJob(ctx context.Context, d place, args fsckArgs, out io.Writer) (exit int, err error) {
	c := d.cache
	if c == nil {
		var own *local.Store
		if store, err := openStore(d.cfg); err != nil {
			fmt.Fprintln(out, "references that are in the local store alone count as missing:", err)
		} else if store != nil {
			defer store.Close()
			own = local.New(store, nil, "", d.log)
		}
		if c, err = openCache(d.dataDir, own, nil); err != nil {
			return 2, err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		if err := c.Recover(); err != nil {
			return 2, err
		}
	}
	r, err := fsck.Run(ctx, c.Uploads, fsck.Options{Repair: args.Repair, Report: func(line string) {
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
