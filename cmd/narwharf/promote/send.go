package promote

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/promoter"
)

// Send sends a release, or writes it to a file.
func (f *Flags) Send(c *cobra.Command, p *promoter.Promoter, r *promoter.Release, err error) error {
	switch {
	case err != nil:
		return f.finish(c, p, nil, err)
	case f.out != "":
		return p.Save(r, f.out)
	}
	answer, err := p.Send(c.Context(), r)
	return f.finish(c, p, answer, err)
}

// finish prints what became of a promote, and waits if asked to.
func (f *Flags) finish(c *cobra.Command, p *promoter.Promoter, a *api.Promoted, err error) error {
	var e *api.Error
	switch {
	case errors.As(err, &e) && e.Kind == api.RaceLost:
		return command.Failed{Code: 4, Err: err}
	case err != nil:
		return err
	case a.DryRun || !f.wait:
		if f.client.JSON && !f.wait {
			return terminal.JSON(c.OutOrStdout(), a)
		}
		return nil
	}
	r, err := p.Wait(c.Context(), a.Seq, f.timeout, f.offline)
	if err == nil && f.client.JSON {
		err = terminal.JSON(c.OutOrStdout(), r)
	}
	switch {
	case err != nil:
		return err
	case r.Outcome == promoter.Completed:
		return nil
	case r.Outcome == promoter.Reverted:
		return command.Exit(3)
	case r.Outcome == promoter.Superseded:
		return command.Exit(4)
	}
	return command.Failed{Code: 5, Err: fmt.Errorf("not done after %s: %s", f.timeout, r.Summary)}
}
