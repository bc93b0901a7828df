package promote

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/summary"
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
	return f.sendBy(c, p, func() (*api.Promoted, error) { return p.Send(c.Context(), r) })
}

// sendBy sends a release by a function; with --summary it asks for the plan before.
func (f *Flags) sendBy(c *cobra.Command, p *promoter.Promoter, send func() (*api.Promoted, error)) error {
	if f.summary != "" && !p.DryRun {
		p.DryRun = true
		before, err := p.Quiet(send)
		p.DryRun = false
		if err == nil {
			err = f.summarise(before, nil)
		}
		if err != nil {
			return f.finish(c, p, nil, err)
		}
	}
	answer, err := send()
	if err == nil && answer.DryRun {
		err = f.planned(c, answer)
	}
	return f.finish(c, p, answer, err)
}

// planned tells what a dry run came to.
func (f *Flags) planned(c *cobra.Command, a *api.Promoted) error {
	if f.summary != "" {
		if err := f.summarise(a, nil); err != nil {
			return err
		}
	}
	if a.Plan == nil || f.client.JSON {
		return nil // who may not look at hosts, an older server; JSON has it all
	}
	f.bar.End()
	fmt.Fprintln(c.OutOrStdout())
	return summary.Plan(c.OutOrStdout(), a.Plan, shownPackages)
}

// shownPackages is how many packages of a step a dry run shows.
const shownPackages = 20

// summarise appends to the file of --summary.
func (f *Flags) summarise(before *api.Promoted, after *summary.Outcome) error {
	file, err := os.OpenFile(f.summary, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644) //nolint:gosec // for all to read
	if err != nil {
		return fmt.Errorf("--summary: %w", err)
	}
	switch {
	case after != nil:
		summary.OutcomeMarkdown(file, after)
	case before.Plan != nil:
		summary.PlanMarkdown(file, before.Plan)
	default:
		_, err = io.WriteString(file, fmt.Sprintf("## Release %d of %s\n\n%d targets change, %d stay, %d go. What that does to hosts is told to who may look at them (scope read:%[2]s).\n\n", before.Seq, before.Channel, len(before.Changed), before.Unchanged, len(before.Removed)))
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("--summary: %w", err)
	}
	return nil
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
		if f.client.JSON && (!f.wait || a.DryRun) {
			return terminal.JSON(c.OutOrStdout(), a)
		}
		return nil
	}
	return f.await(c, p, a.Seq)
}
