package access

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/api/login"
)

// sessionsCommand is the command access sessions.
func sessionsCommand() *cobra.Command {
	c := command.New("sessions", "who is logged in with a browser", 0, 0,
		`Lists your own sessions: those of the person that the issuer of your login names, or
those that your token began. An admin sees everybody's.

    narwharf access sessions
    narwharf access sessions end --all     log out everywhere, after a laptop was lost
    narwharf access sessions end ID`)
	c = command.WithServer(c, func(s *command.Session, _ []string) error {
		list, err := login.Client{Client: s.Client}.Sessions(s.Ctx)
		if err != nil {
			return err
		}
		return s.Show(list, func() error {
			return terminal.Table(s.Out, "ID\tWHO\tSINCE\tENDS\tFROM", func(row func(...any)) {
				for _, l := range list {
					who := l.Name + " (" + l.Subject + ")"
					if l.Own {
						who += ", you"
					}
					row(l.ID, who, l.Created.Format(time.DateTime), api.TimeText(l.Ends), l.From)
				}
			})
		})
	})
	c.AddCommand(endSessionCommand())
	return c
}

func endSessionCommand() *cobra.Command {
	c := command.New("end ID | end --all", "log a browser out, or all of yours", 0, 1,
		`What the browser shows is worth nothing from then on, also on a page that waits.
An admin ends anybody's. Who still fits a rule of the configuration can log in
again: take the rule out first, and restart the server.`)
	all := c.Flags().Bool("all", false, "all of your own sessions")
	return command.WithServer(c, func(s *command.Session, args []string) error {
		if *all == (len(args) > 0) {
			return errors.New("give the ID of a session, which narwharf access sessions lists, or --all")
		}
		id := login.AllSessions
		if !*all {
			id = args[0]
		}
		if err := (login.Client{Client: s.Client}).EndSession(s.Ctx, id); err != nil {
			return err
		}
		_, err := fmt.Fprintln(s.Out, "ended")
		return err
	})
}
