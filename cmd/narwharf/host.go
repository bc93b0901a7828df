package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"narwharf/hooks/api"
)

// hostCommand is the parent of what is said about one host.
func hostCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "host",
		Short: "look at one host, hold it, label it, direct it, say which machine it is",
	}
	c.AddCommand(hostShowCommand(), hostHoldCommand(), hostUnholdCommand(), hostLabelCommand(),
		hostRetryCommand(), hostRevertCommand(), hostReleaseCommand(), hostApproveCommand(), hostRemoveCommand())
	return c
}

func hostShowCommand() *cobra.Command {
	c := &cobra.Command{Use: "show HOST", Short: "show what a host runs, should run, and waits for", Args: cobra.ExactArgs(1)}
	return withServer(c, func(s *session, args []string) error { return s.host(s.Host(s.ctx, args[0])) })
}

// host prints an answer that is a host.
func (s *session) host(h *api.Host, err error) error {
	if err != nil {
		return err
	}
	return s.show(h, func() error {
		hostText(s.out, h)
		return nil
	})
}

// hostText is for people: one line a fact, those that are not there left out.
func hostText(out io.Writer, h *api.Host) {
	line := func(name, format string, args ...any) {
		if text := fmt.Sprintf(format, args...); text != "" {
			fmt.Fprintf(out, "%-11s %s\n", name, text)
		}
	}
	line("host", "%s", h.Host)
	for _, text := range identityLines(h) {
		line("machine", "%s", text)
	}
	line("seen", "%s", seenText(h, "polls now"))
	var labels []string
	for k, v := range h.Labels {
		labels = append(labels, k+"="+v)
	}
	slices.Sort(labels)
	line("labels", "%s", strings.Join(labels, " "))
	if h.Hold != nil {
		line("held", "%s", holdText(h.Hold))
	}
	if h.Wanted != "" {
		line("wanted", "seq %d, %s", h.WantedSeq, h.Wanted)
	}
	if h.WaitingFor != nil {
		line("waiting", "%s", strings.TrimPrefix(h.WaitingFor.Text(), "waits: "))
	}
	if sl := h.Slot; sl != nil {
		late := ""
		if sl.Late {
			late = ", and is late: no end of it was reported"
		}
		line("slot", "may reboot for seq %d since %s, in a slot of the group %s%s", sl.Seq, api.TimeText(sl.Granted), sl.Group, late)
	}
	if h.Directive != nil {
		line("asked to", "%s seq %d%s", h.Directive.Type, h.Directive.Seq, obeyedText(h))
	}
	st := h.Status
	if st == nil {
		line("state", "never reported")
		return
	}
	line("channel", "%s, target %s", st.Channel, st.Target)
	line("state", "%s, seq %d, reported %s", st.State, st.Seq, h.Reported.Local().Format(time.DateTime))
	line("error", "%s", st.Error)
	line("current", "%s", st.Current)
	line("booted", "%s", st.Booted)
	line("profile", "%s", st.Profile)
	if st.NeedReboot {
		line("reboot", "needed (%s)", strings.Join(st.NeedRebootFor, ", "))
	}
	for _, ch := range st.Checks {
		word := "well"
		if !ch.OK {
			word = "not well"
		}
		line("check", "%s is %s %s", ch.Name, word, ch.Detail)
	}
	line("agent", "%s, boot %s", st.Agent, st.BootID)
}

// obeyedText says what the host made of its directive, where it counts them.
func obeyedText(h *api.Host) string {
	d, st := h.Directive, h.Status
	switch {
	case st == nil || d.Serial == 0 || st.HighestSeq != d.Seq || st.DirectiveSerial < d.Serial:
		return ""
	case st.DirectiveSerial == d.Serial:
		return ", which it has obeyed"
	}
	return ", which is older than what it has obeyed: it stays as it is; say it again if it is meant"
}

func holdText(h *api.Hold) string {
	text := h.Reason + ", by " + h.By
	if h.Until != nil {
		text += ", until " + h.Until.Local().Format(time.DateTime)
	}
	return text
}

func hostHoldCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "hold HOST --reason TEXT",
		Short: "keep a host as it is",
		Long: `Keeps a host from starting on any release, until it is let go or the time is
over. What it has begun it ends.

    narwharf host hold web-1 --reason "disk is being replaced" --until 4h`,
		Args: cobra.ExactArgs(1),
	}
	reason := c.Flags().String("reason", "", "`TEXT` for people who ask why")
	until := c.Flags().String("until", "", "let it go at this `TIME` from now, as 4h or 2d (default: at unhold)")
	must(c.MarkFlagRequired("reason"))
	return withServer(c, func(s *session, args []string) error {
		hold := api.Hold{Reason: *reason}
		if *until != "" {
			d, err := parseAge(*until)
			if err != nil {
				return fmt.Errorf("--until: %w", err)
			}
			t := time.Now().Add(d).UTC().Truncate(time.Second)
			hold.Until = &t
		}
		return s.host(s.PatchHost(s.ctx, args[0], map[string]any{"hold": hold}))
	})
}

func hostUnholdCommand() *cobra.Command {
	c := &cobra.Command{Use: "unhold HOST", Short: "let a held host go", Args: cobra.ExactArgs(1)}
	return withServer(c, func(s *session, args []string) error {
		return s.host(s.PatchHost(s.ctx, args[0], map[string]any{"unhold": true}))
	})
}

func hostLabelCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "label HOST NAME=VALUE… NAME-…",
		Short: "set labels of a host, or take them away",
		Long: `Labels sort hosts for the server: none of them makes a host take another entry.
NAME- takes a label away; labels that are not named stay.

    narwharf host label web-1 rack=2 reboot_group=web old-`,
		Args: cobra.MinimumNArgs(2),
	}
	return withServer(c, func(s *session, args []string) error {
		labels := make(map[string]*string)
		for _, a := range args[1:] {
			name, value, set := strings.Cut(a, "=")
			if gone, ok := strings.CutSuffix(a, "-"); !set && ok {
				labels[gone] = nil
				continue
			}
			if !set || name == "" {
				return errors.New("a label is NAME=VALUE, or NAME- to take it away")
			}
			labels[name] = &value
		}
		return s.host(s.PatchHost(s.ctx, args[0], map[string]any{"labels": labels}))
	})
}
