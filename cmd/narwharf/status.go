package main

import (
	"strings"

	"github.com/spf13/cobra"

	"narwharf/hooks/api"
)

func statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status [CHANNEL]",
		Short: "sum up channels: how many hosts run the last release",
		Args:  cobra.MaximumNArgs(1),
	}
	return withServer(c, func(s *session, args []string) error {
		list, err := s.Hosts(s.ctx, strings.Join(args, ""))
		if err != nil {
			return err
		}
		sums := api.Summarise(list)
		return s.show(sums, func() error {
			return table(s.out, "CHANNEL\tSEQ\tHOSTS\tCONVERGED\tOFFLINE\tNEED REBOOT\tTROUBLE", func(row func(...any)) {
				for _, c := range sums {
					row(c.Channel, c.Seq, c.Hosts, c.Converged, c.Offline, c.NeedReboot, strings.Join(c.Trouble, ", "))
				}
			})
		})
	})
}
