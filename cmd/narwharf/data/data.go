// Package data has the commands that work on a data_dir, beside the server that has it
// open or without one: whether it is whole, the index made anew, and copies of it.
package data

import (
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/server"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/serverconfig"
)

// Commands are those of this package.
func Commands() []*cobra.Command {
	return []*cobra.Command{Fsck(), Rebuild(), Export(), Import(), Backup(), Restore()}
}

// Job runs a job on data_dir, in the server that has it open or here.
type Job func(name string, args any, out io.Writer) error

// With makes a command one that works on a data_dir.
func With(c *cobra.Command, do func(run Job, args []string) error) *cobra.Command {
	return withConfig(c, func(_ *serverconfig.Config, run Job, args []string) error { return do(run, args) })
}

func withConfig(c *cobra.Command, do func(cfg *serverconfig.Config, run Job, args []string) error) *cobra.Command {
	config := command.ConfigFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := serverconfig.Load(*config)
		if err != nil {
			return err
		}
		log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
		return do(cfg, func(name string, args any, out io.Writer) error {
			bar := terminal.NewProgress(c.ErrOrStderr())
			defer bar.End()
			exit, err := server.RunJob(bar.With(c.Context()), cfg, c.Root().Version, name, args, bar.Writer(out), log)
			if err == nil && exit != 0 {
				return command.Exit(exit)
			}
			return err
		}, args)
	}
	return c
}
