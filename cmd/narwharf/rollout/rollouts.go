package rollout

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/summary"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api/rollouts"
	"narwharf/hooks/rollout"
)

func rolloutCommand() *cobra.Command {
	return command.Group("rollout", "look at roll-outs, watch them, stop them, let them go on",
		`A channel whose policy has "rollout" brings a release to its hosts wave by wave
(docs/rollouts.md). These show how that goes, and say what a person has to say.

    narwharf rollout list
    narwharf rollout watch web
    narwharf rollout pause web --reason "looking into it"

narwharf freeze stops all channels at once.`,
		listCommand(), showCommand(), watchCommand(),
		verbCommand(rollout.Pause, "nobody begins with the release until resume",
			`Hosts that have begun end it; no other begins. Time for a wave does not run
meanwhile.`),
		verbCommand(rollout.Resume, "let a paused or halted roll-out go on",
			`Of one that halted it is in spite of the errors that there were: they are forgiven,
and the current wave has its time once more. Hosts that ended badly are not asked
again: that is retry.`),
		verbCommand(rollout.Abort, "take a release back from the hosts that have it",
			`Nobody new begins, and hosts that have the release go back to what they had
confirmed before, those last that came first. Offline ones do when they come.
To go back from a release that has completed use narwharf rollback.`),
		verbCommand(rollout.Retry, "let hosts that ended badly take the release again",
			`Hosts that went back, failed, or were made to leave the release are granted it once
more; with --host that one alone. A roll-out that halted goes on.`),
		verbCommand(rollout.Advance, "say yes to a wave that waits for it",
			`A wave with "approve" waits for this once enough of its hosts are well and it has
baked. The yes is for the wave that the server shows when you say it.`),
		verbCommand(rollout.Skip, "end the current wave as it is, and open the next",
			`The wave counts as passed, whatever its hosts, its bake and its checks say. Hosts of
it that wait still get their turn.`))
}

// parse reads CHANNEL or CHANNEL@SEQ.
func parse(text string) (channel string, seq int64, err error) {
	channel, of, ok := strings.Cut(text, "@")
	if !ok && channel != "" {
		return channel, 0, nil
	}
	if seq, err = strconv.ParseInt(of, 10, 64); err != nil || seq < 1 || channel == "" {
		return "", 0, fmt.Errorf("%q is neither a channel nor CHANNEL@SEQ, as web@42", text)
	}
	return channel, seq, nil
}

func listCommand() *cobra.Command {
	c := command.New("list [CHANNEL]", "list the roll-outs of channels, one each", 0, 1, "")
	return command.WithServer(c, func(s *command.Session, args []string) error {
		of := ""
		if len(args) > 0 {
			of = args[0]
		}
		list, err := rollouts.Client{Client: s.Client}.List(s.Ctx, of)
		if err != nil {
			return err
		}
		return s.Show(list, func() error {
			if len(list) == 0 {
				_, err := fmt.Fprintln(s.Errs, `no channel that you may look at has roll-outs: a channel has them once its policy has "rollout" (narwharf channel policy CHANNEL)`)
				return err
			}
			return terminal.Table(s.Out, "CHANNEL\tSEQ\tSTATE\tWAVE\tWELL\tON THEIR WAY\tBAD\tOFFLINE\tWHY", func(row func(...any)) {
				for i := range list {
					r := &list[i]
					row(r.Channel, r.Seq, terminal.Cell{Text: string(r.State), Mood: moods[r.State]}, wave(r), fmt.Sprintf("%d of %d", r.Well, r.Total), r.InFlight, r.Bad, r.Offline, r.Why)
				}
			})
		})
	})
}

var moods = map[rollout.State]terminal.Mood{
	rollout.Running: terminal.Busy, rollout.Planned: terminal.Busy, rollout.Queued: terminal.Dim, rollout.Paused: terminal.Busy,
	rollout.Halted: terminal.Bad, rollout.Aborting: terminal.Bad, rollout.Aborted: terminal.Bad, rollout.Superseded: terminal.Dim, rollout.Completed: terminal.Good,
}

// wave is the current one.
func wave(s *rollout.Summary) string {
	for i := len(s.Waves) - 1; i >= 0; i-- {
		if s.Waves[i].State != rollout.WaveAhead {
			return fmt.Sprintf("%d/%d %s", i+1, len(s.Waves), s.Waves[i].Name)
		}
	}
	return "-"
}

func showCommand() *cobra.Command {
	c := command.New("show CHANNEL[@SEQ]", "show a roll-out: its waves, who is on his way, why others wait", 1, 1, "")
	return command.WithServer(c, func(s *command.Session, args []string) error {
		channel, seq, err := parse(args[0])
		if err != nil {
			return err
		}
		r, _, err := rollouts.Client{Client: s.Client}.Show(s.Ctx, channel, seq, "", 0)
		if err != nil {
			return err
		}
		return present(s, r)
	})
}

func present(s *command.Session, r *rollout.Summary) error {
	return s.Show(r, func() error {
		for _, line := range summary.Tree(r, time.Now()) {
			fmt.Fprintln(s.Out, line)
		}
		return nil
	})
}

func verbCommand(verb, short, long string) *cobra.Command {
	need := verb == rollout.Abort || verb == rollout.Advance || verb == rollout.Skip
	use := verb + " CHANNEL[@SEQ]"
	if need {
		use += " --reason TEXT"
	}
	c := command.New(use, short, 1, 1, long)
	reason := c.Flags().String("reason", "", "`TEXT` for people who ask why, and the audit log")
	host := new(string)
	if verb == rollout.Retry {
		host = c.Flags().String("host", "", "this `HOST` alone")
	}
	if need {
		command.Must(c.MarkFlagRequired("reason"))
	}
	return command.WithServer(c, func(s *command.Session, args []string) error {
		channel, seq, err := parse(args[0])
		if err != nil {
			return err
		}
		client := rollouts.Client{Client: s.Client}
		is, _, err := client.Show(s.Ctx, channel, 0, "", 0)
		if err != nil {
			return err
		}
		if seq != 0 && seq != is.Seq {
			return fmt.Errorf("the roll-out of %s is of release %d now, not %d: look at it with narwharf rollout show %[1]s", channel, is.Seq, seq)
		}
		rev := int64(0)
		if verb == rollout.Advance || verb == rollout.Skip {
			rev = is.Rev // of the wave that was looked at, not of one that opened meanwhile
		}
		r, err := client.Say(s.Ctx, channel, verb, rev, &rollouts.Verb{Seq: is.Seq, Reason: *reason, Host: *host})
		if err != nil {
			return err
		}
		return present(s, r)
	})
}
