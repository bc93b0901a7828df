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
		sums := summarise(list)
		return s.show(sums, func() error {
			return table(s.out, "CHANNEL\tSEQ\tHOSTS\tCONVERGED\tOFFLINE\tNEED REBOOT\tTROUBLE", func(row func(...any)) {
				for _, c := range sums {
					row(c.Channel, c.Seq, c.Hosts, c.Converged, c.Offline, c.NeedReboot, strings.Join(c.Trouble, ", "))
				}
			})
		})
	})
}

// channelSum counts the hosts of a channel.
type channelSum struct {
	Channel    string   `json:"channel"`
	Seq        int64    `json:"seq"`
	Hosts      int      `json:"hosts"`
	Converged  int      `json:"converged"`
	Offline    int      `json:"offline"`
	NeedReboot int      `json:"need_reboot"`
	Trouble    []string `json:"trouble"` // host: state
}

// summarise counts hosts by the channel that they reported last, "-" for those that
// never did.
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
