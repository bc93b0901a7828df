package main

import (
	"io"
	"strings"

	"github.com/spf13/cobra"

	"narwharf/hooks/api"
)

func hostsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "hosts [CHANNEL]",
		Short: "list hosts: what they run, what they should run, why they wait",
		Args:  cobra.MaximumNArgs(1),
	}
	return withServer(c, func(s *session, args []string) error {
		list, err := s.Hosts(s.ctx, strings.Join(args, ""))
		if err != nil {
			return err
		}
		return s.show(list, func() error { return hostTable(s.out, list) })
	})
}

func hostTable(out io.Writer, hosts []api.Host) error {
	return table(out, "HOST\tSEEN\tSTATE\tSEQ\tWANTED\tCURRENT\tNOTES", func(row func(...any)) {
		for _, h := range hosts {
			seen := seenText(&h, "now")
			state, seq, current := "never reported", int64(0), ""
			notes := identityNotes(&h)
			if st := h.Status; st != nil {
				state, seq, current = string(st.State), st.Seq, st.Current
				if st.NeedReboot {
					notes = append(notes, "needs a reboot ("+strings.Join(st.NeedRebootFor, ", ")+")")
				}
				if st.Error != "" {
					notes = append(notes, st.Error)
				}
			}
			if h.Slot != nil && h.Slot.Late {
				notes = append(notes, "its reboot is late: no end of it was reported")
			}
			if h.WaitingFor != nil {
				notes = append(notes, h.WaitingFor.Text())
			}
			row(h.Host, seen, state, seq, h.WantedSeq, current, strings.Join(notes, "; "))
		}
	})
}
