// Package retention is the commands about what a cache keeps: flags in, one call, words out.
package retention

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/api/retention"
	"narwharf/narinfo/clip"
)

// Commands are all of them.
func Commands() []*cobra.Command {
	return []*cobra.Command{gcCommand(), whyCommand(), duCommand(), pinCommand(), unpinCommand(), deleteCommand()}
}

func gcCommand() *cobra.Command {
	c := command.New("gc", "delete what nothing keeps", 0, 0,
		`Deletes uploads that no channel names, no host runs and no pin keeps, once their
grace is over: the time for which uploaders may believe that they are here
([retention] in the server's configuration). The server does by itself what its
limits call for, once an hour; this is for all that may go, now.

    narwharf gc --dry-run     what would go, why, how much
    narwharf gc

A server that has lost its database, or has just come from an older narwharf,
waits for one grace, since it does not know what was of use. --early says that
nothing was: then runners that keep their HOME need nix copy --refresh.

The server collects: stopping this command does not stop it.`)
	dry := c.Flags().Bool("dry-run", false, "only say what would go")
	early := c.Flags().Bool("early", false, "do not wait for what a lost database would know")
	return command.WithServer(c, func(s *command.Session, _ []string) error {
		client := retention.Client{Client: s.Client}
		if *dry {
			p, err := client.Plan(s.Ctx, *early)
			if err != nil {
				return err
			}
			return s.Show(p, func() error { return plan(s.Out, p) })
		}
		st, err := client.Collect(s.Ctx, *early)
		if err != nil {
			return err
		}
		bar := terminal.NewProgress(s.Errs)
		r, err := client.Collected(s.Ctx, st, func(r *retention.Running) { bar.Report(r.Step, r.Done, r.Total) })
		bar.End()
		if err != nil {
			return err
		}
		if r == nil {
			return fmt.Errorf("the server was started again before the collection had ended: narwharf gc begins another")
		}
		if err := s.Show(r, func() error { return result(s.Out, r) }); err != nil {
			return err
		}
		if r.Error != "" {
			return fmt.Errorf("the collection ended early: %s", r.Error)
		}
		return nil
	})
}

// reasons say why something goes.
var reasons = map[string]string{
	"asked": "nothing keeps it", "age": "longer unused than max_age", "size": "the uploads have more than max_size", "disk": "the disk is full",
}

func words(reason string) string {
	if text := reasons[reason]; text != "" {
		return text
	}
	return reason
}

func sumText(s retention.Sum) string {
	return clip.Count(s.Paths, "path") + ", " + retention.Bytes(s.Bytes)
}

// lines prints what is known, as "name   value".
func lines(out io.Writer, pairs ...string) {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(out, "%-11s %s\n", pairs[i], pairs[i+1])
		}
	}
}

// limits are the lines about bounds.
func limits(size, maxSize, free, minFree, over int64) []string {
	of := func(n int64, words string) string {
		if n == 0 {
			return ""
		}
		return fmt.Sprintf(words, retention.Bytes(n))
	}
	return []string{
		"size", retention.Bytes(size) + of(maxSize, " of %s (max_size)"),
		"free", of(free, "%s") + of(minFree, ", %s at least (min_free)"),
		"over", of(over, "%s too much, and nothing more may go"),
	}
}

func waits(t *time.Time) string {
	if t == nil {
		return ""
	}
	return fmt.Sprintf("nothing may go before %s, since the server does not know what was of use; --early if nothing was", api.TimeText(*t))
}

func plan(out io.Writer, p *retention.Plan) error {
	lines(out, "uploads", sumText(p.Uploads), "kept", sumText(p.Kept)+", by channels, hosts and pins", "young", sumText(p.Young)+", within their grace",
		"loose", sumText(p.Loose)+", kept by nothing")
	lines(out, limits(p.Size, p.MaxSize, p.Free, p.MinFree, p.Over)...)
	lines(out, "waits", waits(p.Waits))
	for _, reason := range slices.Sorted(maps.Keys(p.Going)) {
		lines(out, "would go", sumText(p.Going[reason])+": "+words(reason))
	}
	if len(p.Going) == 0 {
		lines(out, "would go", "nothing")
	}
	if p.GraceYields {
		lines(out, "", "some of it within its grace: runners that keep their HOME need nix copy --refresh then")
	}
	if len(p.Paths) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	err := terminal.Table(out, "STORE PATH\tSIZE\tLAST USED\tWHY", func(row func(...any)) {
		for _, g := range p.Paths {
			row(g.Path, retention.Bytes(g.Bytes), api.TimeText(g.Used), words(g.Reason))
		}
	})
	if err == nil && p.More > 0 {
		_, err = fmt.Fprintf(out, "and %d more\n", p.More)
	}
	return err
}

func result(out io.Writer, r *retention.Result) error {
	for _, reason := range slices.Sorted(maps.Keys(r.Gone)) {
		lines(out, "gone", sumText(r.Gone[reason])+": "+words(reason))
	}
	if r.Paths() == 0 {
		lines(out, "gone", "nothing")
	}
	if r.Stayed > 0 {
		lines(out, "stayed", fmt.Sprintf("%d paths that were of use again by then", r.Stayed))
	}
	if r.Packed > 0 {
		lines(out, "packed", retention.Bytes(r.Packed)+" of copies of the local store, which are made again when asked for")
	}
	if r.GraceYielded {
		lines(out, "", "some of it within its grace, since the disk was full: runners that keep their HOME need nix copy --refresh")
	}
	lines(out, "kept", sumText(r.Kept)+", by channels, hosts and pins", "young", sumText(r.Young)+", within their grace", "waits", waits(r.Waits))
	lines(out, limits(r.Size, r.MaxSize, r.Free, r.MinFree, r.Over)...)
	return nil
}
