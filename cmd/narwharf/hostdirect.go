package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"narwharf/hooks/api"
)

// aboutSeq makes a command that tells the server something about a host and the
// release that seq finds in what the server shows of it.
func aboutSeq(c *cobra.Command, leaf string, seq func(h *api.Host) (int64, error)) *cobra.Command {
	c.Args = cobra.ExactArgs(1)
	return withServer(c, func(s *session, args []string) error {
		h, err := s.Host(s.ctx, args[0])
		if err != nil {
			return err
		}
		n, err := seq(h)
		if err != nil {
			return err
		}
		return s.host(s.PostHost(s.ctx, args[0], leaf, map[string]int64{"seq": n}))
	})
}

func wantedSeq(h *api.Host) (int64, error) {
	if h.Wanted == "" {
		return 0, fmt.Errorf("the last release of its channel has nothing for %s", h.Host)
	}
	return h.WantedSeq, nil
}

func hostRetryCommand() *cobra.Command {
	return aboutSeq(&cobra.Command{
		Use:   "retry HOST",
		Short: "let a host try again what failed there",
		Long: `A host tries an entry that failed there not again by itself, in no release. This
lets it try once more, with the last release. A host that is armed, and whose
reboot failed (its pre_reboot hook, for one), tries that at once, and is not behind
the others of its group any more.`,
	}, "retry", wantedSeq)
}

func hostRevertCommand() *cobra.Command {
	return aboutSeq(&cobra.Command{
		Use:   "revert HOST",
		Short: "let a host leave the last release",
		Long: `The host goes back to the last system that it had found well before, and stays
there until another release or narwharf host retry. To take a whole channel back
use narwharf rollback.`,
	}, "revert", wantedSeq)
}

func hostReleaseCommand() *cobra.Command {
	return aboutSeq(&cobra.Command{
		Use:   "release HOST",
		Short: "take the reboot slot of a host that will not come back",
		Long: `A host that was let reboot holds a slot of its group until it has reported the
end, and others wait. This takes the slot away: say it when you know that the
host is dead, or well. Of one that is up and does not reboot the slot is free by
itself once its permission is over.`,
	}, "release", func(h *api.Host) (int64, error) {
		if h.Slot == nil {
			return 0, fmt.Errorf("%s holds no reboot slot", h.Host)
		}
		return h.Slot.Seq, nil
	})
}
