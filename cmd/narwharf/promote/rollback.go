package promote

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
)

func rollbackCommand() *cobra.Command {
	c := command.New("rollback CHANNEL", "promote an earlier release again, as a new one", 1, 1,
		`Makes a new release with the systems of an earlier one: the last whose roll-out
completed well or, in a channel without roll-outs, the last that at least one host
ended ok and none badly, as they reported; or the one that --to names. It says which
that is, how old and why, and asks; where nobody can be asked (CI) say --to. What a
rollback went back from is passed over. If no host reported anything it is the
release before the last. Hosts never go back in seq; they go forward to old systems.

    narwharf rollback web --dry-run     what it would do, and what hosts said
    narwharf rollback web
    narwharf rollback web --to last-good
    narwharf rollback web --to 41`)
	f := AddFlags(c)
	to := c.Flags().String("to", "", "`SEQ` to go back to, or last-good, without being asked")
	c.RunE = func(c *cobra.Command, args []string) error {
		seq, err := int64(0), error(nil)
		if *to != "" && *to != "last-good" {
			if seq, err = strconv.ParseInt(*to, 10, 64); err != nil || seq < 1 {
				return fmt.Errorf("--to: %q is neither a seq nor last-good", *to)
			}
		}
		p, err := f.Promoter(c, args[0])
		if err != nil {
			return err
		}
		defer f.bar.End()
		ask := *to == "" && !f.options.DryRun && f.out == ""
		if ask && !terminal.IsTerminal(c.InOrStdin()) {
			return fmt.Errorf("rollback: nobody is here to be asked whether that is the right release: say --to last-good, or --to SEQ (narwharf rollback %s --dry-run tells which it would be)", args[0])
		}
		r, err := p.Rollback(c.Context(), seq)
		if err == nil && ask {
			f.bar.End()
			if err = terminal.Ask(c.InOrStdin(), c.ErrOrStderr(), "go back to it?"); err != nil {
				return err
			}
		}
		return f.Send(c, p, r, err)
	}
	return c
}

// RefreshCommand is narwharf channel refresh.
func RefreshCommand() *cobra.Command {
	c := command.New("refresh CHANNEL", "promote what a channel has once more, signed anew", 1, 1,
		`Makes a new release with the entries of the last one, byte for byte: hosts that run
them have nothing to do. It is made and signed now, by the keys given, so that hosts with
require_fresh see that nobody withholds a newer one, and so that keys that stay have
signed before another is retired. --expires gives it a new end.

    narwharf channel refresh web --expires 14d      from a timer of CI, say`)
	f := AddFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		p, err := f.Promoter(c, args[0])
		if err != nil {
			return err
		}
		defer f.bar.End()
		r, err := p.Refresh(c.Context())
		return f.Send(c, p, r, err)
	}
	return c
}
