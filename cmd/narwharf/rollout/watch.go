package rollout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/summary"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api/rollouts"
	"narwharf/hooks/promoter/follow"
	"narwharf/hooks/rollout"
)

func watchCommand() *cobra.Command {
	c := command.New("watch CHANNEL[@SEQ]", "watch a roll-out until it ends", 1, 1,
		`On a terminal a tree that is always up to date, also while the roll-out is halted;
elsewhere a line for each thing that happens, until it ends or halts. Exit status:
0 completed, 4 superseded, 6 halted, 7 aborted.`)
	return command.WithServer(c, func(s *command.Session, args []string) error {
		channel, seq, err := parse(args[0])
		if err != nil {
			return err
		}
		o := follow.Options{Client: rollouts.Client{Client: s.Client}, Channel: channel, Seq: seq, AtOnce: true}
		end := func() {}
		switch live := terminal.NewLive(s.Out); {
		case s.JSON:
			o.See = func(r *rollout.Summary) { _ = terminal.JSON(s.Out, r) }
		case live != nil:
			o.Through, o.See, o.Lost, end = true, func(r *rollout.Summary) { live.Show(func(now time.Time) []string { return summary.Tree(r, now) }) }, live.Lost, live.End
		default:
			o.See, o.Lost = lines(s.Out, time.Now()), func(err error) { fmt.Fprintf(s.Errs, "waiting for the server: %v\n", err) }
		}
		r, err := follow.Run(s.Ctx, o)
		end()
		if errors.Is(err, context.Canceled) {
			return nil // by the person who watches
		}
		if err != nil {
			return err
		}
		return Ended(r)
	})
}

// lines prints what is new of a roll-out.
func lines(out io.Writer, start time.Time) func(*rollout.Summary) {
	news := new(follow.News)
	return func(r *rollout.Summary) {
		for _, line := range news.Of(r) {
			fmt.Fprintf(out, "%6.1fs  %s\n", time.Since(start).Seconds(), line)
		}
		if r.State.Over() || r.State == rollout.Halted {
			fmt.Fprintf(out, "%s: release %d of %s: %s\n", r.State, r.Seq, r.Channel, follow.Line(r))
		}
	}
}

// Ended is the exit status of a roll-out that has ended, or halted.
func Ended(r *rollout.Summary) error {
	switch r.State {
	case rollout.Superseded:
		return command.Exit(4)
	case rollout.Halted:
		return command.Exit(6)
	case rollout.Aborting, rollout.Aborted:
		return command.Exit(7)
	}
	return nil
}
