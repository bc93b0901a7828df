// Package telling has the commands about what people have to look at and how they are told: alarm, notify.
package telling

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/api/alarm"
	"narwharf/narinfo/clip"
)

// Commands are all of them.
func Commands() []*cobra.Command { return []*cobra.Command{alarmCommand(), notifyCommand()} }

func alarmCommand() *cobra.Command {
	return command.Group("alarm", "list, take and close what somebody has to look at",
		`Alarms are what somebody has to look at: a host that failed, a disk that fills, a
release that was withheld. The server opens them, and closes them when they are
over; of those that no event ends a person says so. docs/runbook.md has what to do
about each kind.

    narwharf alarm list
    narwharf alarm take 4711 --reason "on it"
    narwharf alarm close 4711 --reason "the disk was replaced"`,
		listCommand(), takeCommand(), closeCommand())
}

func listCommand() *cobra.Command {
	c := command.New("list [CHANNEL]", "list the alarms that are open", 0, 1,
		`Lists the alarms that are open, of one channel or of all, the newest first. SINCE
is when an alarm was opened, COUNT how many events told of it. With --closed it
lists the last that were closed, and how they ended.`)
	closed := c.Flags().Bool("closed", false, "those that were closed, in place of those that are open")
	return command.WithServer(c, func(s *command.Session, args []string) error {
		list, err := alarm.Client{Client: s.Client}.List(s.Ctx, alarm.Query{Channel: strings.Join(args, ""), Closed: *closed})
		if err != nil {
			return err
		}
		return s.Show(list, func() error { return table(s, list, *closed) })
	})
}

func table(s *command.Session, list []alarm.Alarm, closed bool) error {
	if len(list) == 0 {
		word := "open"
		if closed {
			word = "closed"
		}
		_, err := fmt.Fprintf(s.Out, "no alarm is %s\n", word)
		return err
	}
	head := "ID\tSINCE\tKIND\tABOUT\tCOUNT\tTAKEN\tTEXT"
	if closed {
		head = "ID\tSINCE\tUNTIL\tKIND\tABOUT\tCOUNT\tCLOSED BY\tBECAUSE"
	}
	return terminal.Table(s.Out, head, func(row func(...any)) {
		for _, a := range list {
			if closed && a.Closed != nil {
				row(a.ID, api.TimeText(a.Opened), api.TimeText(a.Closed.At), a.Kind, a.Subject, a.Count, a.Closed.By, clip.Line(a.Closed.Reason, 4096))
				continue
			}
			taken := ""
			if a.Taken != nil {
				taken = a.Taken.By
			}
			row(a.ID, api.TimeText(a.Opened), a.Kind, a.Subject, a.Count, taken, clip.Line(a.Text, 4096))
		}
	})
}

func idOf(verb, text string) (int64, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 {
		return 0, fmt.Errorf("alarm %s: %q is no number: narwharf alarm list has those of the alarms", verb, text)
	}
	return id, nil
}

func takeCommand() *cobra.Command {
	c := command.New("take ID", "say that you look after an alarm", 1, 1,
		`Says that you look after an alarm, so that nobody else has to. It stays open until
it is over. Who had it before has it no more.`)
	reason := c.Flags().String("reason", "", "`TEXT` for others")
	return command.WithServer(c, func(s *command.Session, args []string) error {
		id, err := idOf("take", args[0])
		if err != nil {
			return err
		}
		a, err := alarm.Client{Client: s.Client}.Take(s.Ctx, id, *reason)
		if err != nil {
			return err
		}
		return s.Show(a, func() error {
			_, err := fmt.Fprintf(s.Out, "%d (%s) is yours: %s\n", a.ID, strings.TrimSpace(a.Kind+" "+a.Subject), clip.Line(a.Text, 4096))
			return err
		})
	})
}

func closeCommand() *cobra.Command {
	c := command.New("close ID --reason TEXT", "say that nobody has to look after an alarm any more", 1, 1,
		`Closes an alarm that no event ends, or that is none. If what it is about goes on,
the next event opens another one.`)
	reason := c.Flags().String("reason", "", "why it is over, as `TEXT` for others")
	command.Must(c.MarkFlagRequired("reason"))
	return command.WithServer(c, func(s *command.Session, args []string) error {
		id, err := idOf("close", args[0])
		if err != nil {
			return err
		}
		a, err := alarm.Client{Client: s.Client}.Close(s.Ctx, id, *reason)
		if err != nil {
			return err
		}
		return s.Show(a, func() error {
			_, err := fmt.Fprintf(s.Out, "closed %d (%s)\n", a.ID, strings.TrimSpace(a.Kind+" "+a.Subject))
			return err
		})
	})
}
