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
	f := addClientFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return withClient(f, func(client *api.Client) error {
			list, err := client.Hosts(c.Context(), strings.Join(args, ""))
			if err != nil {
				return err
			}
			sums := summarise(list)
			if f.json {
				return printJSON(c, sums)
			}
			return table(c, "CHANNEL\tSEQ\tHOSTS\tCONVERGED\tOFFLINE\tNEED REBOOT\tTROUBLE", func(row func(...any)) {
				for _, s := range sums {
					row(s.Channel, s.Seq, s.Hosts, s.Converged, s.Offline, s.NeedReboot, strings.Join(s.Trouble, ", "))
				}
			})
		})
	}
	return c
}

// channelSum is a line of `narwharf status`.
type channelSum struct {
	Channel    string   `json:"channel"`
	Seq        int64    `json:"seq"`
	Hosts      int      `json:"hosts"`
	Converged  int      `json:"converged"`
	Offline    int      `json:"offline"`
	NeedReboot int      `json:"need_reboot"`
	Trouble    []string `json:"trouble"` // host: state
}

func summarise(hosts []api.Host) []channelSum {
	var sums []channelSum
	at := make(map[string]int)
	for _, h := range hosts {
		name := "-"
		if h.Status != nil {
			name = h.Status.Channel
		}
		i, ok := at[name]
		if !ok {
			i = len(sums)
			at[name] = i
			sums = append(sums, channelSum{Channel: name, Trouble: []string{}})
		}
		s := &sums[i]
		s.Hosts++
		s.Seq = max(s.Seq, h.WantedSeq)
		if h.Converged {
			s.Converged++
		}
		if !h.Online {
			s.Offline++
		}
		if st := h.Status; st != nil {
			if st.NeedReboot {
				s.NeedReboot++
			}
			switch st.State {
			case api.Failed, api.Rejected, api.Reverted, api.StageFailed, api.Drifted:
				s.Trouble = append(s.Trouble, h.Host+": "+string(st.State))
			}
		}
	}
	return sums
}
