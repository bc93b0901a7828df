package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
)

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

func rebuildJob(ctx context.Context, d place, _ struct{}, out io.Writer) (exit int, err error) {
	c := d.cache
	if c == nil {
		if c, err = openCache(d.dataDir, nil, nil); err != nil {
			return 2, err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
	}
	report := func(format string, args ...any) {
		fmt.Fprintf(out, format+"\n", args...) // as above
	}
	if err := c.Rebuild(ctx, report); err != nil {
		return 2, fmt.Errorf("rebuild: %w", err)
	}
	if d.channels == nil {
		if d.channels, err = openChannels(d.dataDir, c, nil, nil, prometheus.NewRegistry()); err != nil {
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
