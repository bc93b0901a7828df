// Package gate is the commands about what a change has to pass: checks and reboot slots.
package gate

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/api/gate"
)

// Commands are all of them.
func Commands() []*cobra.Command {
	return []*cobra.Command{
		command.Group("check", "what is asked while a wave of a roll-out bakes", `A check is a query of Prometheus with a bound, a URL that has to answer 2xx, or a
command. It stands in the server's configuration as [[check]], and a channel's policy
names it ("checks" of a wave). The server asks it while the wave bakes: a no, or no
answer until the end, halts the roll-out.`, checkListCommand(), checkAskCommand()),
		command.Group("reboots", "who may reboot now", `Hosts that need a reboot get a slot of their group first, as many at a time as the policy
of their channel has reboot_slots. Machines that are no hosts share them by the FleetLock
protocol.`, rebootListCommand(), rebootFreeCommand()),
	}
}

func checkListCommand() *cobra.Command {
	c := command.New("list", "list the checks of the server's configuration", 0, 0, "")
	return command.WithServer(c, func(s *command.Session, _ []string) error {
		list, err := gate.Client{Client: s.Client}.Checks(s.Ctx)
		if err != nil {
			return err
		}
		return s.Show(list, func() error {
			return terminal.Table(s.Out, "CHECK\tKIND\tEVERY\tASKS", func(row func(...any)) {
				for _, k := range list {
					row(k.Name, k.Kind, time.Duration(k.IntervalS)*time.Second, k.Asks)
				}
			})
		})
	})
}

// Exit statuses of check ask, beside 0 for yes.
const (
	saidNo   = 1
	saidNone = 3
)

func checkAskCommand() *cobra.Command {
	c := command.New("ask NAME", "have the server ask a check now", 1, 1,
		`The server asks a check of its configuration once, as it would while a wave bakes, and
the answer is printed. It asks from where the server is, with the server's token files
and as the server's user, so that what is seen here is what a roll-out will see.

Exit status: 0 yes, 1 no, 3 no answer, 2 anything else that went wrong.

    narwharf check ask error-rate
    narwharf check ask smoke --channel web`)
	channel := c.Flags().String("channel", "", "tell a command of the current release of this `CHANNEL`")
	return command.WithServer(c, func(s *command.Session, args []string) error {
		a, err := gate.Client{Client: s.Client}.Ask(s.Ctx, args[0], *channel)
		if err != nil {
			return err
		}
		err = s.Show(a, func() error {
			_, err := fmt.Fprintf(s.Out, "%s: %s (%s)\n", a.Said, a.Detail, time.Duration(a.TookMS)*time.Millisecond)
			return err
		})
		switch {
		case err != nil || a.Said == "yes":
			return err
		case a.Said == "no":
			return command.Exit(saidNo)
		}
		return command.Exit(saidNone)
	})
}

func rebootListCommand() *cobra.Command {
	c := command.New("list", "list who holds a reboot slot", 0, 0, "")
	return command.WithServer(c, func(s *command.Session, _ []string) error {
		list, err := gate.Client{Client: s.Client}.Slots(s.Ctx)
		if err != nil {
			return err
		}
		return s.Show(list, func() error { return slots(s, list) })
	})
}

func slots(s *command.Session, list []gate.Slot) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(s.Out, "nobody holds a reboot slot")
		return err
	}
	return terminal.Table(s.Out, "GROUP\tLIMIT\tHOLDER\tFOR\tSINCE\tNOTE", func(row func(...any)) {
		for i := range list {
			sl := &list[i]
			holder, why, note := sl.Host, fmt.Sprintf("%s@%d", sl.Channel, sl.Seq), ""
			if sl.ID != "" {
				holder, why = sl.ID, "FleetLock"
			}
			if sl.Overdue {
				note = "overdue: no end of the reboot was reported"
			}
			limit := "none"
			if sl.Limit > 0 {
				limit = fmt.Sprint(sl.Limit)
			}
			row(sl.Group, limit, holder, why, api.TimeText(sl.Granted), note)
		}
	})
}

func rebootFreeCommand() *cobra.Command {
	c := command.New("free GROUP ID", "take the reboot slot of a machine that is no host and will not come back", 2, 2,
		`A machine that was let reboot by FleetLock holds a slot of its group until it says that
it is in its steady state. This takes the slot away, for others of the group: do it when
the machine is dead, or well and cannot say so. That of a host is taken with
narwharf host release.`)
	return command.WithServer(c, func(s *command.Session, args []string) error {
		if err := (gate.Client{Client: s.Client}).Free(s.Ctx, args[0], args[1]); err != nil {
			return err
		}
		return s.Show(map[string]string{"group": args[0], "id": args[1]}, func() error {
			_, err := fmt.Fprintf(s.Out, "%s holds no reboot slot of %s any more\n", args[1], args[0])
			return err
		})
	})
}
