package telling

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/api/notify"
)

func notifyCommand() *cobra.Command {
	return command.Group("notify", "see who is told what happens, and try it",
		`Targets are the sections [[notify]] of the server's configuration: URLs that are told
what happens. docs/notify.md has what they are sent.`,
		targetsCommand(), testCommand())
}

func targetsCommand() *cobra.Command {
	c := command.New("list", "list the targets, and what becomes of what they are sent", 0, 0,
		`Lists the targets, with how many events wait for each, and what came of those since
the server's start: SENT, REFUSED (the target does not want them), DROPPED (too
many waited, or for too long). LAST is the last answer.`)
	return command.WithServer(c, func(s *command.Session, _ []string) error {
		list, err := notify.Client{Client: s.Client}.List(s.Ctx)
		if err != nil {
			return err
		}
		return s.Show(list, func() error {
			if len(list) == 0 {
				_, err := fmt.Fprintln(s.Out, "nobody is told anything: the server's configuration has no [[notify]]")
				return err
			}
			return terminal.Table(s.Out, "TARGET\tTO\tTELLS\tWAIT\tSENT\tREFUSED\tDROPPED\tFAILING SINCE\tLAST", func(row func(...any)) {
				for _, t := range list {
					failing, last := "", ""
					if t.Failing != nil {
						failing = api.TimeText(*t.Failing)
					}
					if t.Last != nil {
						last = cmp.Or(t.Last.Error, fmt.Sprint(t.Last.Status))
					}
					row(t.Name, t.To, tells(&t), t.Queued, t.Sent, t.Refused, t.Dropped, failing, last)
				}
			})
		})
	})
}

// tells is what a target is told.
func tells(t *notify.Target) string {
	what := t.Events
	if t.Alarms {
		what = append([]string{"alarms"}, what...)
	}
	text := strings.Join(what, " ")
	if len(t.Channels) > 0 {
		text += " of " + strings.Join(t.Channels, " ")
	}
	return text
}

func testCommand() *cobra.Command {
	c := command.New("test TARGET", "have the server send one event to a target now", 1, 1,
		`Has the server send one event of the kind notify.test, past all that waits, and prints
what the target answers. The exit status is 1 if it does not take it.`)
	text := c.Flags().String("text", "", "what it says, as `TEXT`")
	return command.WithServer(c, func(s *command.Session, args []string) error {
		a, err := notify.Client{Client: s.Client}.Test(s.Ctx, args[0], *text)
		if err != nil {
			return err
		}
		err = s.Show(a, func() error {
			line := fmt.Sprintf("%s took it: %d", args[0], a.Status)
			if a.Error != "" {
				line = args[0] + " has not taken it: " + a.Error
			}
			if a.Answer != "" {
				line += fmt.Sprintf(", %q", a.Answer)
			}
			_, err := fmt.Fprintf(s.Out, "%s (%.2f s)\n", line, a.Seconds)
			return err
		})
		if err == nil && a.Error != "" {
			return command.Exit(1)
		}
		return err
	})
}
