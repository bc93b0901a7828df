package api

// ChannelSummary counts the hosts of a channel, as `narwharf status` shows them.
type ChannelSummary struct {
	Channel    string   `json:"channel"`
	Seq        int64    `json:"seq"`
	Hosts      int      `json:"hosts"`
	Converged  int      `json:"converged"`
	Offline    int      `json:"offline"`
	NeedReboot int      `json:"need_reboot"`
	Trouble    []string `json:"trouble"` // host: state
}

// Summarise counts hosts by the channel that they reported last, "-" for those that
// never did.
func Summarise(hosts []Host) []ChannelSummary {
	var sums []ChannelSummary
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
			sums = append(sums, ChannelSummary{Channel: name, Trouble: []string{}})
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
			case Failed, Rejected, Reverted, StageFailed, Drifted:
				s.Trouble = append(s.Trouble, h.Host+": "+string(st.State))
			}
		}
	}
	return sums
}
