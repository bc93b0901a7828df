package access

import (
	"cmp"
	"strings"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/narinfo/clip"
)

// Events is the command events.
func Events() *cobra.Command {
	c := command.New("events [CHANNEL]", "read the audit log: what was done, by whom, from where", 0, 1,
		`Prints the last lines of the audit log, of one channel or of all. --who picks
those of one person or program, by the name or id of a token, a rule
(github/main), a subject, a user of the server's machine, or an address; * in it
stands for anything.

    narwharf events web --who 'github/*'
    narwharf events --who 203.0.113.7 --limit 1000 --json

REQUEST is what the answer to the request had as X-Request-Id; the server's log
has it, too. Lines without WHO the server wrote by itself. narwharf watch follows
the log as it grows.`)
	pattern := c.Flags().String("who", "", "lines of those whom this `PATTERN` means alone")
	limit := c.Flags().Int("limit", 100, "how many lines, the last `N`; 0: all")
	return command.WithServer(c, func(s *command.Session, args []string) error {
		who, err := audit.ParseWho(*pattern)
		if err != nil {
			return err
		}
		list, err := lastEvents(s, strings.Join(args, ""), *pattern, who, *limit)
		if err != nil {
			return err
		}
		return s.Show(list, func() error { return eventTable(s, list) })
	})
}

// lastEvents reads the log from its beginning, and keeps the last lines. A server that does not
// know patterns answers with everybody's.
func lastEvents(s *command.Session, channel, pattern string, who *audit.Who, limit int) ([]api.Event, error) {
	list := []api.Event{}
	for since := int64(1); ; {
		page, next, err := s.EventsBy(s.Ctx, since, channel, pattern, 0)
		if err != nil {
			return nil, err
		}
		for i := range page {
			if who.Did(&page[i]) {
				list = append(list, page[i])
			}
		}
		if limit > 0 && len(list) > limit {
			list = append([]api.Event{}, list[len(list)-limit:]...)
		}
		if next <= since {
			return list, nil
		}
		since = next
	}
}

func eventTable(s *command.Session, list []api.Event) error {
	return terminal.Table(s.Out, "TIME\tWHO\tFROM\tWHAT\tREQUEST\tTEXT", func(row func(...any)) {
		for _, e := range list {
			who, from := e.By, ""
			if a := e.Actor; a != nil {
				who, from = cmp.Or(a.Name, e.By, a.Token), a.Address
				if a.Subject != "" {
					who += " (" + a.Subject + ")"
				}
				if a.Credential == "user" {
					who += " (user)"
				}
			}
			kind := e.Kind
			if e.Alarm {
				kind = "ALARM " + kind
			}
			row(api.TimeText(e.Time), who, from, kind, e.Request, clip.Line(e.Text, 4096))
		}
	})
}
