package access

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
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
(github/main), a subject, a user of the server's machine, or an address, and
--kind those of one kind; * in them stands for anything. --before goes on where
the last lines of a former call began.

    narwharf events web --who 'github/*'
    narwharf events --host web-1 --kind 'host.*'
    narwharf events --who 203.0.113.7 --limit 1000 --json

REQUEST is what the answer to the request had as X-Request-Id; the server's log
has it, too. Lines without WHO the server wrote by itself. narwharf watch follows
the log as it grows.`)
	q := make(map[string]*string)
	for name, what := range map[string]string{
		"who": "lines of those whom this `PATTERN` means alone", "kind": "lines of kinds that this `PATTERN` means alone, as rollout.*",
		"host": "lines about this `HOST` alone", "before": "lines whose ids are below this `ID` alone",
	} {
		q[name] = c.Flags().String(name, "", what)
	}
	limit := c.Flags().Int("limit", 100, "how many lines, the last `N`; 0: all")
	return command.WithServer(c, func(s *command.Session, args []string) error {
		query := url.Values{"channel": {strings.Join(args, "")}}
		for name, value := range q {
			query.Set(name, *value)
		}
		list, older, err := lastEvents(s, query, *limit)
		if err != nil {
			return err
		}
		return s.Show(list, func() error {
			if err := eventTable(s, list); err != nil || older == 0 {
				return err
			}
			_, err := fmt.Fprintf(s.Out, "older lines: --before %d\n", older)
			return err
		})
	})
}

// lastEvents reads the log backwards. It returns the lines in their order, and the id of the first of them if there may be older ones.
func lastEvents(s *command.Session, query url.Values, limit int) (list []api.Event, older int64, err error) {
	meant, err := audit.ParseQuery(query.Get)
	if err != nil {
		return nil, 0, err
	}
	before := cmp.Or(meant.Before, 1<<53-1)
	for list = []api.Event{}; before > 0; {
		query.Set("before", strconv.FormatInt(before, 10))
		page, next, err := s.EventsWhere(s.Ctx, query, 0)
		if err != nil {
			return nil, 0, err
		}
		if len(page) > 0 && next > page[0].ID || next >= before {
			return forwards(s, &meant, query, limit) // a server that reads in one direction alone
		}
		for _, e := range page {
			if list = append(list, e); len(list) == limit {
				slices.Reverse(list)
				return list, e.ID, nil
			}
		}
		before = next
	}
	slices.Reverse(list)
	return list, 0, nil
}

// forwards reads the log from its beginning, and keeps the last lines that are meant: older servers know fewer filters.
func forwards(s *command.Session, meant *audit.Query, query url.Values, limit int) (list []api.Event, older int64, err error) {
	query.Del("before")
	list = []api.Event{}
	for since := int64(1); ; {
		query.Set("since", strconv.FormatInt(since, 10))
		page, next, err := s.EventsWhere(s.Ctx, query, 0)
		if err != nil {
			return nil, 0, err
		}
		for i := range page {
			if e := &page[i]; meant.Means(e) && (meant.Before == 0 || e.ID < meant.Before) {
				list = append(list, *e)
			}
		}
		if limit > 0 && len(list) > limit {
			list, older = slices.Clone(list[len(list)-limit:]), list[len(list)-limit].ID
		}
		if next <= since {
			return list, older, nil
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
