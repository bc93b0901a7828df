package main

import "github.com/spf13/cobra"

func rollbackCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rollback CHANNEL",
		Short: "promote an earlier release again, as a new one",
		Long: `Makes a new release with the systems of an earlier one: the last but one, or the
one that --to names. Hosts never go back in seq; they go forward to old systems.

    narwharf rollback web
    narwharf rollback web --to 41`,
		Args: cobra.ExactArgs(1),
	}
	f := addPromoteFlags(c)
	to := c.Flags().Int64("to", 0, "`SEQ` to go back to (default: the release before the last)")
	c.RunE = func(c *cobra.Command, args []string) error {
		p, err := f.promoter(c, args[0])
		if err != nil {
			return err
		}
		r, err := p.Rollback(c.Context(), *to)
		return f.send(c, p, r, err)
	}
	return c
}
