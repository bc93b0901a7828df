// Package replicas is the command about the servers that share a state.
package replicas

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/api/replica"
)

// Command is narwharf replicas.
func Command() *cobra.Command {
	c := command.New("replicas", "list the servers that share a database", 0, 0,
		`Lists the servers that share a database ([storage] state), as the one that is asked knows
them. LAG is how late a server heard of the last change of another, CLOCK by how much
its clock is behind the database's. DOES is what one of them does at a time, and DIFFERS what of its
configuration is not as on the server that is asked. The scope is operate.`)
	return command.WithServer(c, func(s *command.Session, _ []string) error {
		list, err := replica.Client{Client: s.Client}.List(s.Ctx)
		if err != nil {
			return err
		}
		return s.Show(list, func() error {
			if len(list) == 0 {
				_, err := fmt.Fprintln(s.Out, "this server shares its state with no other: its configuration has no [storage] state")
				return err
			}
			return terminal.Table(s.Out, "SERVER\tVERSION\tSINCE\tHEARD\tLAG\tCLOCK\tDOES\tDIFFERS", func(row func(...any)) {
				for _, r := range list {
					heard := api.TimeText(r.Heard)
					if r.Silent {
						heard += " (silent)"
					}
					row(r.Name, r.Version, api.TimeText(r.Since), heard, time.Duration(r.LagMS)*time.Millisecond, time.Duration(r.ClockMS)*time.Millisecond,
						cmp.Or(strings.Join(r.Does, " "), "-"), cmp.Or(strings.Join(r.Differs, " "), "-"))
				}
			})
		})
	})
}
