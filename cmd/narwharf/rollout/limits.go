package rollout

import (
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/api/rollouts"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/policy"
)

func freezeCommand() *cobra.Command {
	c := command.New("freeze [--reason TEXT [--until TIME] | --off]", "no host begins with anything, on any channel", 0, 0,
		`What hosts have begun they end; nobody begins with a release, an abort or a reboot
until the freeze is over. Without flags it says whether there is one.

    narwharf freeze --reason "incident 4711" --until 4h
    narwharf freeze --off`)
	reason := c.Flags().String("reason", "", "`TEXT` for people who ask why")
	until := c.Flags().String("until", "", "end by itself at this `TIME` from now, as 4h or 2d (default: at --off)")
	off := c.Flags().Bool("off", false, "end it")
	return command.WithServer(c, func(s *command.Session, _ []string) error {
		client := rollouts.Client{Client: s.Client}
		var f *rollouts.Freeze
		var err error
		switch {
		case *off && (*reason != "" || *until != ""):
			return errors.New("freeze: --off ends the freeze: it goes with no other flag")
		case *off:
			f, err = client.Freeze(s.Ctx, nil)
		case *reason == "" && *until == "":
			f, err = client.Frozen(s.Ctx)
		case *reason == "":
			return errors.New(`freeze: people will ask why: narwharf freeze --reason "…"`)
		default:
			var h *rollout.Hold
			if h, err = hold(*reason, *until); err == nil {
				f, err = client.Freeze(s.Ctx, h)
			}
		}
		if err != nil {
			return err
		}
		return s.Show(f, func() error {
			if !f.Frozen {
				_, err := fmt.Fprintln(s.Out, "there is no freeze")
				return err
			}
			_, err := fmt.Fprintf(s.Out, "frozen: no host begins with anything, until %s: %s (%s)\n", untilText(f.Freeze.Until, "narwharf freeze --off"), f.Freeze.Reason, terminal.Unknown(f.Freeze.By))
			return err
		})
	})
}

// hold is one that ends by itself after until, if that says something.
func hold(reason, until string) (*rollout.Hold, error) {
	h := &rollout.Hold{Reason: reason}
	end, err := command.ParseUntil(until)
	if end != nil {
		h.Until = *end
	}
	return h, err
}

func untilText(t time.Time, never string) string {
	if t.IsZero() {
		return never
	}
	return api.TimeText(t)
}

func budgetCommand() *cobra.Command {
	list := command.WithServer(command.New("list", "list the budgets, and how much of them is used", 0, 0, ""), func(s *command.Session, _ []string) error {
		all, err := rollouts.Client{Client: s.Client}.Budgets(s.Ctx)
		if err != nil {
			return err
		}
		return s.Show(all, func() error {
			return terminal.Table(s.Out, "BUDGET\tHOSTS OF\tMAX UNAVAILABLE\tHOSTS\tUNAVAILABLE", func(row func(...any)) {
				for _, b := range all {
					row(b.Name, selected(b.Select), b.MaxUnavailable.String(), b.Hosts, b.Unavailable)
				}
			})
		})
	})
	set := command.New("set NAME MAX", "bound how many hosts may be unavailable at a time, over all channels", 2, 2,
		`MAX is a number or a share of the hosts that the selector picks: 2, 10%. A host
counts from its grant until it is well again; one that is unavailable already needs
no budget.

    narwharf budget set quorum 1 --select role=etcd`)
	text := set.Flags().String("select", "", "`SELECTOR` of hosts, as site=fra,role!=db (default: all)")
	command.WithServer(set, func(s *command.Session, args []string) error {
		b := new(rollout.Budget)
		var err error
		if b.Select, err = policy.ParseSelector(*text); err != nil {
			return fmt.Errorf("--select: %w", err)
		}
		if b.MaxUnavailable, err = policy.ParseAmount(args[1]); err != nil {
			return fmt.Errorf("budget set: MAX: %w", err)
		}
		is, err := rollouts.Client{Client: s.Client}.SetBudget(s.Ctx, args[0], b)
		if err != nil {
			return err
		}
		return s.Show(is, func() error {
			_, err := fmt.Fprintf(s.Out, "budget %s: %s of %d hosts (%s) may be unavailable at a time; %d are now\n", is.Name, is.MaxUnavailable.String(), is.Hosts, selected(is.Select), is.Unavailable)
			return err
		})
	})
	return command.Group("budget", "bound how many hosts may be unavailable at a time, over all channels", "", list, set, removeCommand("budget", "budgets", "take a budget away"))
}

func holdCommand() *cobra.Command {
	list := command.WithServer(command.New("list", "list the holds by selector", 0, 0, ""), func(s *command.Session, _ []string) error {
		all, err := rollouts.Client{Client: s.Client}.Holds(s.Ctx)
		if err != nil {
			return err
		}
		return s.Show(all, func() error {
			return terminal.Table(s.Out, "HOLD\tHOSTS OF\tUNTIL\tBY\tREASON", func(row func(...any)) {
				for _, h := range all {
					row(h.Name, selected(h.Select), untilText(h.Until, "removed"), terminal.Unknown(h.By), h.Reason)
				}
			})
		})
	})
	set := command.New("set NAME SELECTOR --reason TEXT", "keep the hosts that a selector picks as they are", 2, 2,
		`Hosts of any channel, also those that get the labels later. What they have begun
they end. One host alone is narwharf host hold, all of them narwharf freeze.

    narwharf hold set fra site=fra --reason "power works" --until 8h`)
	reason := set.Flags().String("reason", "", "`TEXT` for people who ask why")
	until := set.Flags().String("until", "", "end by itself at this `TIME` from now, as 4h or 2d (default: at hold remove)")
	command.Must(set.MarkFlagRequired("reason"))
	command.WithServer(set, func(s *command.Session, args []string) error {
		h, err := hold(*reason, *until)
		if err != nil {
			return err
		}
		if h.Select, err = policy.ParseSelector(args[1]); err != nil {
			return fmt.Errorf("hold set: SELECTOR: %w", err)
		}
		is, err := rollouts.Client{Client: s.Client}.SetHold(s.Ctx, args[0], h)
		if err != nil {
			return err
		}
		return s.Show(is, func() error {
			_, err := fmt.Fprintf(s.Out, "hold %s: the hosts of %s stay as they are until %s: %s\n", is.Name, selected(is.Select), untilText(is.Until, "narwharf hold remove "+is.Name), is.Reason)
			return err
		})
	})
	return command.Group("hold", "keep the hosts that a selector picks as they are, over all channels", "", list, set, removeCommand("hold", "holds", "let the hosts of a hold go"))
}

func removeCommand(noun, nouns, short string) *cobra.Command {
	c := command.New("remove NAME", short, 1, 1, "")
	return command.WithServer(c, func(s *command.Session, args []string) error {
		if err := (rollouts.Client{Client: s.Client}).Remove(s.Ctx, nouns, args[0]); err != nil {
			return err
		}
		return s.Show(map[string]string{"removed": args[0]}, func() error {
			_, err := fmt.Fprintf(s.Out, "removed %s %s\n", noun, args[0])
			return err
		})
	})
}

func quarantineCommand() *cobra.Command {
	list := command.WithServer(command.New("list", "list the systems that are given to nobody", 0, 0, ""), func(s *command.Session, _ []string) error {
		all, err := rollouts.Client{Client: s.Client}.Quarantined(s.Ctx)
		if err != nil {
			return err
		}
		return s.Show(all, func() error {
			return terminal.Table(s.Out, "SYSTEM\tCHANNEL\tSEQ\tWENT BACK\tSINCE", func(row func(...any)) {
				for _, q := range all {
					row(q.Path, q.Channel, q.Seq, fmt.Sprintf("%d hosts", q.Hosts), api.TimeText(q.At))
				}
			})
		})
	})
	remove := command.New("clear SYSTEM", "let a system be given to hosts again", 1, 1,
		`SYSTEM is the store path as narwharf quarantine list has it, its name, or the hash
in it. A promote with --force goes past a quarantine once; this ends it.`)
	command.WithServer(remove, func(s *command.Session, args []string) error {
		if err := (rollouts.Client{Client: s.Client}).Remove(s.Ctx, "quarantine", path.Base(args[0])); err != nil {
			return err
		}
		return s.Show(map[string]string{"cleared": args[0]}, func() error {
			_, err := fmt.Fprintf(s.Out, "%s may be given to hosts again; narwharf rollout retry lets those try that went back\n", args[0])
			return err
		})
	})
	return command.Group("quarantine", "systems that are given to nobody, since hosts went back from them", "", list, remove)
}

func selected(s policy.Selector) string {
	if s.Any() {
		return "all hosts"
	}
	return s.String()
}
