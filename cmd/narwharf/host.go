package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
)

// hostCommand is the parent of what is said about one host.
func hostCommand() *cobra.Command {
	return command.Group("host", "look at one host, hold it, label it, direct it, say which machine it is", "",
		hostShowCommand(), hostHoldCommand(), hostUnholdCommand(), hostLabelCommand(),
		hostRetryCommand(), hostRevertCommand(), hostReleaseCommand(), hostAsksCommand(), hostApproveCommand(), hostRefuseCommand(), hostRemoveCommand())
}

func hostShowCommand() *cobra.Command {
	c := command.New("show HOST", "show what a host runs, should run, and waits for", 1, 1, "")
	return withServer(c, func(s *session, args []string) error { return s.host(s.Host(s.Ctx, args[0])) })
}

// host prints an answer that is a host.
func (s *session) host(h *api.Host, err error) error {
	if err != nil {
		return err
	}
	return s.Show(h, func() error {
		terminal.Host(s.Out, h)
		return nil
	})
}

func hostHoldCommand() *cobra.Command {
	c := command.New("hold HOST --reason TEXT", "keep a host as it is", 1, 1,
		`Keeps a host from starting on any release, until it is let go or the time is
over. What it has begun it ends.

    narwharf host hold web-1 --reason "disk is being replaced" --until 4h`)
	reason := c.Flags().String("reason", "", "`TEXT` for people who ask why")
	until := c.Flags().String("until", "", "let it go at this `TIME` from now, as 4h or 2d (default: at unhold)")
	command.Must(c.MarkFlagRequired("reason"))
	return withServer(c, func(s *session, args []string) error {
		hold, err := command.NewHold(*reason, "", *until)
		if err != nil {
			return err
		}
		return s.host(s.PatchHost(s.Ctx, args[0], map[string]any{"hold": hold}))
	})
}

func hostUnholdCommand() *cobra.Command {
	c := command.New("unhold HOST", "let a held host go", 1, 1, "")
	return withServer(c, func(s *session, args []string) error {
		return s.host(s.PatchHost(s.Ctx, args[0], map[string]any{"unhold": true}))
	})
}

func hostLabelCommand() *cobra.Command {
	c := command.New("label HOST NAME=VALUE… NAME-…", "set labels of a host, or take them away", 2, -1,
		`Labels sort hosts for the server: none of them makes a host take another entry.
NAME- takes a label away; labels that are not named stay.

    narwharf host label web-1 rack=2 reboot_group=web old-`)
	return withServer(c, func(s *session, args []string) error {
		labels := make(map[string]*string)
		for _, a := range args[1:] {
			name, value, set := strings.Cut(a, "=")
			if gone, ok := strings.CutSuffix(a, "-"); !set && ok {
				labels[gone] = nil
				continue
			}
			if !set || name == "" {
				return errors.New("a label is NAME=VALUE, or NAME- to take it away")
			}
			labels[name] = &value
		}
		return s.host(s.PatchHost(s.Ctx, args[0], map[string]any{"labels": labels}))
	})
}

func hostApproveCommand() *cobra.Command {
	c := command.New("approve HOST", "say which of the machines that claim a host name has it", 1, 1,
		`A host name belongs to the machine that reported by it first. Another one that
uses it is refused, and narwharf host show lists it. This gives the name to it;
the former one is refused from then on, and if it joined by a token, its own
token is revoked.

With the instance that has the name already, all others are forgotten, and that
the host was cloned. docs/hosts.md says which to take when.

    narwharf host approve web-1 --instance 5f0c…

With --key it says that an SSH host key is the host's, whose machine has asked to
join by it. Without flags it lists the keys that ask. Compare the fingerprint with
the one that the machine's console shows.

    narwharf host approve web-7 --key SHA256:…`)
	key := c.Flags().String("key", "", "`FINGERPRINT` of the SSH host key by which the host may join")
	instance := c.Flags().String("instance", "", "`ID` of the machine; may be left out if one claims the name. "+terminal.NoInstance+": one whose agent says none")
	return withServer(c, func(s *session, args []string) error {
		id := *instance
		if *key != "" {
			return s.host(s.PostHost(s.Ctx, args[0], "approve", map[string]string{"key": *key}))
		}
		switch id {
		case "":
			h, err := s.Host(s.Ctx, args[0])
			if err != nil {
				return err
			}
			if len(h.Asks) > 0 && len(h.Conflict) == 0 {
				return errors.New(terminal.Asking(h))
			}
			if id, err = onlyClaim(h); err != nil {
				return err
			}
		case terminal.NoInstance:
			id = ""
		}
		return s.host(s.PostHost(s.Ctx, args[0], "approve", map[string]string{"instance": id}))
	})
}

func hostAsksCommand() *cobra.Command {
	c := command.New("asks", "list the machines that ask to be hosts by their SSH host keys", 0, 0,
		`Of a key that is in no list of the server's somebody has to say whose it is:
narwharf host approve, or narwharf host refuse. A machine asks again and again; what
it asks is forgotten a day after the last time.`)
	return withServer(c, func(s *session, _ []string) error {
		list, err := s.Asks(s.Ctx)
		if err != nil {
			return err
		}
		return s.Show(list, func() error { return terminal.Asks(s.Out, list) })
	})
}

func hostRefuseCommand() *cobra.Command {
	c := command.New("refuse HOST --key FINGERPRINT", "say that an SSH host key is not the host's", 1, 1,
		`The machine that asks by the key is told so, while it goes on to ask and for a day
after. narwharf host approve takes it back.

    narwharf host refuse web-7 --key SHA256:…`)
	key := c.Flags().String("key", "", "`FINGERPRINT` of the SSH host key, as narwharf host asks lists it")
	command.Must(c.MarkFlagRequired("key"))
	return withServer(c, func(s *session, args []string) error {
		if err := s.RefuseHost(s.Ctx, args[0], *key); err != nil {
			return err
		}
		return s.Show(map[string]string{"refused": *key}, func() error {
			_, err := fmt.Fprintln(s.Out, "refused "+*key)
			return err
		})
	})
}

// onlyClaim is the one machine that claims a name.
func onlyClaim(h *api.Host) (string, error) {
	switch {
	case len(h.Conflict) == 1:
		return h.Conflict[0].Instance, nil
	case len(h.Conflict) > 1:
		return "", fmt.Errorf("%d machines claim to be %s: name one by --instance\n    %s", len(h.Conflict), h.Host, strings.Join(terminal.IdentityLines(h), "\n    "))
	case h.Identity != nil && h.Identity.Cloned:
		return h.Identity.Instance, nil
	}
	return "", fmt.Errorf("no other machine claims to be %s: there is nothing to approve", h.Host)
}

func hostRemoveCommand() *cobra.Command {
	c := command.New("remove HOST", "forget a host, and which machine it was", 1, 1,
		`Forgets what the host reported, its labels and its hold, and which machine it
is: the next one that reports by the name has it. If it joined by a token, its
own token is revoked. A host that is still there comes back by its next report,
unless that was its token.`)
	return withServer(c, func(s *session, args []string) error {
		if err := s.RemoveHost(s.Ctx, args[0]); err != nil {
			return err
		}
		return s.Show(map[string]string{"removed": args[0]}, func() error {
			_, err := fmt.Fprintln(s.Out, "removed "+args[0])
			return err
		})
	})
}

// aboutSeq makes a command that tells the server something about a host and the
// release that seq finds in what the server shows of it.
func aboutSeq(c *cobra.Command, leaf string, seq func(h *api.Host) (int64, error)) *cobra.Command {
	return withServer(c, func(s *session, args []string) error {
		h, err := s.Host(s.Ctx, args[0])
		if err != nil {
			return err
		}
		n, err := seq(h)
		if err != nil {
			return err
		}
		return s.host(s.PostHost(s.Ctx, args[0], leaf, map[string]int64{"seq": n}))
	})
}

func wantedSeq(h *api.Host) (int64, error) {
	if h.ShownSeq != 0 {
		return h.ShownSeq, nil
	}
	if h.Wanted == "" {
		return 0, fmt.Errorf("the last release of its channel has nothing for %s", h.Host)
	}
	return h.WantedSeq, nil
}

func hostRetryCommand() *cobra.Command {
	return aboutSeq(command.New("retry HOST", "let a host try again what failed there", 1, 1,
		`A host tries an entry that failed there not again by itself, in no release. This
lets it try once more, with the last release. A host that is armed, and whose
reboot failed (its pre_reboot hook, for one), tries that at once, and is not behind
the others of its group any more.`), "retry", wantedSeq)
}

func hostRevertCommand() *cobra.Command {
	return aboutSeq(command.New("revert HOST", "let a host leave the last release", 1, 1,
		`The host goes back to the last system that it had found well before, and stays
there until another release or narwharf host retry. That is no error of its roll-out.
To take a whole channel back use narwharf rollback.`), "revert", wantedSeq)
}

func hostReleaseCommand() *cobra.Command {
	return aboutSeq(command.New("release HOST", "take the reboot slot of a host that will not come back", 1, 1,
		`A host that was let reboot holds a slot of its group until it has reported the
end, and others wait. This takes the slot away: say it when you know that the
host is dead, or well. Of one that is up and does not reboot the slot is free by
itself once its permission is over.`), "release", func(h *api.Host) (int64, error) {
		if h.Slot == nil {
			return 0, fmt.Errorf("%s holds no reboot slot", h.Host)
		}
		return h.Slot.Seq, nil
	})
}
