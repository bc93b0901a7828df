package terminal

import (
	"io"
	"strings"

	"narwharf/hooks/api"
)

// Sums is a table of channels.
func Sums(out io.Writer, sums []ChannelSum) error {
	return Table(out, "CHANNEL\tSEQ\tHOSTS\tCONVERGED\tOFFLINE\tNEED REBOOT\tTROUBLE", func(row func(...any)) {
		for _, c := range sums {
			row(c.Channel, c.Seq, c.Hosts, c.Converged, c.Offline, c.NeedReboot, Cell{strings.Join(c.Trouble, ", "), Bad})
		}
	})
}

// ChannelSum counts the hosts of a channel.
type ChannelSum struct {
	Channel    string   `json:"channel"`
	Seq        int64    `json:"seq"`
	Hosts      int      `json:"hosts"`
	Converged  int      `json:"converged"`
	Offline    int      `json:"offline"`
	NeedReboot int      `json:"need_reboot"`
	Trouble    []string `json:"trouble"` // host: state
}

// Sum counts hosts by the channel that they reported last, "-" for those that
// never did. A channel without hosts has its row.
func Sum(hosts []api.Host, channels []api.Channel) []ChannelSum {
	sums := []ChannelSum{}
	at := make(map[string]int)
	for _, c := range channels {
		at[c.Channel] = len(sums)
		sums = append(sums, ChannelSum{Channel: c.Channel, Seq: c.Seq, Trouble: []string{}})
	}
	for _, h := range hosts {
		name := "-"
		if h.Status != nil {
			name = h.Status.Channel
		}
		i, ok := at[name]
		if !ok {
			i = len(sums)
			at[name] = i
			sums = append(sums, ChannelSum{Channel: name, Trouble: []string{}})
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
				if !h.Asked {
					s.Trouble = append(s.Trouble, h.Host+": "+string(st.State))
				}
			}
		}
	}
	return sums
}
