package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"narwharf/hooks/api"
)

func rollbackCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rollback CHANNEL",
		Short: "promote an earlier release again, as a new one",
		Long: `Makes a new release with the systems of an earlier one: the last but one, or the
one that --to names. Hosts never go back in seq; they go forward to old systems.

    narwharf rollback web
    narwharf rollback web --to 41`,
		Args: cobra.ExactArgs(1),
	}
	f := addPromoteFlags(c)
	to := c.Flags().Int64("to", 0, "`SEQ` to go back to (default: the release before the last)")
	c.RunE = func(c *cobra.Command, args []string) error {
		p, err := newPromoter(c, f, args[0])
		if err != nil {
			return err
		}
		ctx := c.Context()
		if err := p.readBase(ctx); err != nil {
			return err
		}
		if p.baseHead == nil {
			return fmt.Errorf("channel %s has no release that your keys signed, so there is nothing to go back from", p.channel)
		}
		if *to == 0 {
			if *to, err = p.releaseBefore(ctx); err != nil {
				return err
			}
		}
		entries, err := p.rollbackEntries(ctx, *to)
		if err != nil {
			return err
		}
		return p.send(ctx, entries, true)
	}
	return c
}

type historyAnswer struct {
	History []api.HistoryItem `json:"history"`
}

func history(ctx context.Context, client *api.Client, channel string, limit int) ([]api.HistoryItem, error) {
	a, err := client.Do(ctx, api.Call{Path: channelPath(channel) + "/history", Query: url.Values{"limit": {fmt.Sprint(limit)}}, MaxBody: 256 << 20})
	if err != nil {
		return nil, err
	}
	var h historyAnswer
	return h.History, a.Decode(&h)
}

func (p *promoter) releaseBefore(ctx context.Context) (int64, error) {
	list, err := history(ctx, p.api, p.channel, 2)
	if err != nil {
		return 0, err
	}
	if len(list) < 2 {
		return 0, fmt.Errorf("channel %s has only one release", p.channel)
	}
	return list[1].Seq, nil
}

func channelCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "channel",
		Short: "list, show and delete channels, and say when their hosts may act",
	}
	c.AddCommand(channelListCommand(), channelShowCommand(), channelHistoryCommand(), channelPolicyCommand(), channelDeleteCommand())
	return c
}

// withClient loads the configuration and hands over a client.
func withClient(f *clientFlags, fn func(client *api.Client) error) error {
	cfg, err := f.load()
	if err != nil {
		return err
	}
	client, err := cfg.client()
	if err != nil {
		return err
	}
	return fn(client)
}

func channelListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "list the channels", Args: cobra.NoArgs}
	f := addClientFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return withClient(f, func(client *api.Client) error {
			a, err := client.Do(c.Context(), api.Call{Path: "/api/v1/channels"})
			if err != nil {
				return err
			}
			var list struct {
				Channels []api.Channel `json:"channels"`
			}
			if err := a.Decode(&list); err != nil {
				return err
			}
			if f.json {
				return printJSON(c, list.Channels)
			}
			return table(c, "CHANNEL\tSEQ\tKIND\tPROMOTED\tBY", func(row func(...any)) {
				for _, ch := range list.Channels {
					promoted := "deleted"
					if !ch.Deleted {
						promoted = timeText(ch.Promoted)
					}
					row(ch.Channel, ch.Seq, ch.Kind, promoted, orUnknown(ch.By))
				}
			})
		})
	}
	return c
}

// timeText is a time for people, in their time zone.
func timeText(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.Local().Format(time.DateTime)
}

// orUnknown is for what a database that was lost had.
func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// table prints rows under a heading, in columns.
func table(c *cobra.Command, heading string, fill func(row func(...any))) error {
	t := tabwriter.NewWriter(c.OutOrStdout(), 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, heading)
	fill(func(cells ...any) {
		texts := make([]string, 0, len(cells))
		for _, cell := range cells {
			texts = append(texts, fmt.Sprint(cell))
		}
		fmt.Fprintln(t, strings.Join(texts, "\t"))
	})
	return t.Flush()
}

func channelShowCommand() *cobra.Command {
	c := &cobra.Command{Use: "show CHANNEL", Short: "show a channel's release", Args: cobra.ExactArgs(1)}
	f := addClientFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return withClient(f, func(client *api.Client) error {
			a, err := client.Do(c.Context(), api.Call{Path: channelPath(args[0]), MaxBody: 256 << 20})
			if err != nil {
				return err
			}
			ch := new(api.Channel)
			if err := a.Decode(ch); err != nil {
				return err
			}
			if f.json {
				return printJSON(c, ch)
			}
			head, entries, err := ch.Release.Check()
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			fmt.Fprintf(out, "channel    %s (%s)\nseq        %d\norigin     %s\npromoted   %s by %s\nkeys       %s (%d must sign)\n",
				ch.Channel, ch.Kind, ch.Seq, head.Origin, timeText(ch.Promoted), orUnknown(ch.By), strings.Join(ch.Keys, "\n           "), ch.Threshold)
			for k, v := range head.Meta {
				fmt.Fprintf(out, "%-10s %s\n", k, v)
			}
			fmt.Fprintln(out)
			return table(c, "TARGET\tACTION\tSYSTEM\tSTORE PATH", func(row func(...any)) {
				for _, e := range entries {
					row(e.Target, e.Action, e.System, e.StorePath)
				}
			})
		})
	}
	return c
}

func channelHistoryCommand() *cobra.Command {
	c := &cobra.Command{Use: "history CHANNEL", Short: "list a channel's releases, newest first", Args: cobra.ExactArgs(1)}
	f := addClientFlags(c)
	limit := c.Flags().Int("limit", 20, "how many")
	c.RunE = func(c *cobra.Command, args []string) error {
		return withClient(f, func(client *api.Client) error {
			list, err := history(c.Context(), client, args[0], *limit)
			if err != nil {
				return err
			}
			if f.json {
				return printJSON(c, list)
			}
			return table(c, "SEQ\tPROMOTED\tBY\tTARGETS\tWHAT", func(row func(...any)) {
				for _, h := range list {
					what := h.Meta["rev"]
					if len(h.Targets) == 1 {
						what = h.Targets[0].StorePath
					}
					if h.Rollback {
						what += " (rollback)"
					}
					row(h.Seq, timeText(h.Promoted), orUnknown(h.By), len(h.Targets), what)
				}
			})
		})
	}
	return c
}

func channelDeleteCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "delete CHANNEL",
		Short: "delete a channel; its hosts keep what they run",
		Long: `Deletes a channel. Its hosts keep what they run, and its seq goes on if it is
promoted again: a seq is used once.`,
		Args: cobra.ExactArgs(1),
	}
	f := addClientFlags(c)
	ifSeq := c.Flags().Int64("if-seq", -1, "delete only if the channel is at this `SEQ`")
	c.RunE = func(c *cobra.Command, args []string) error {
		return withClient(f, func(client *api.Client) error {
			seq := *ifSeq
			if seq < 0 {
				a, err := client.Do(c.Context(), api.Call{Path: channelPath(args[0]), MaxBody: 256 << 20})
				if err != nil {
					return err
				}
				var ch api.Channel
				if err := a.Decode(&ch); err != nil {
					return err
				}
				seq = ch.Seq
			}
			_, err := client.Do(c.Context(), api.Call{Method: http.MethodDelete, Path: channelPath(args[0]), IfMatch: fmt.Sprintf(`"%d"`, seq)})
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "deleted %s after seq %d\n", args[0], seq)
			return nil
		})
	}
	return c
}

func watchCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "watch CHANNEL",
		Short: "print what happens to a channel and its hosts, as it happens",
		Args:  cobra.ExactArgs(1),
	}
	f := addClientFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return withClient(f, func(client *api.Client) error { return watch(c, f, client, args[0]) })
	}
	return c
}

// watch follows the audit log from its end on.
func watch(c *cobra.Command, f *clientFlags, client *api.Client, channel string) error {
	ctx := c.Context()
	since := int64(1)
	first := true
	for ctx.Err() == nil {
		call := api.Call{Path: "/api/v1/events", Query: url.Values{"since": {fmt.Sprint(since)}, "channel": {channel}}}
		if !first {
			call.Wait = 45 * time.Second
		}
		a, err := client.Do(ctx, call)
		var e *api.Error
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &e) && e.Kind != api.Unavailable && e.Kind != api.Internal:
			return err
		case err != nil:
			fmt.Fprintf(c.ErrOrStderr(), "waiting for the server: %v\n", err)
			time.Sleep(2 * time.Second)
			continue
		case a.Status == http.StatusNotModified:
			continue
		}
		var page struct {
			Events []api.Event `json:"events"`
			Next   int64       `json:"next"`
		}
		if err := a.Decode(&page); err != nil {
			return err
		}
		for i, ev := range page.Events {
			if first && i < len(page.Events)-10 {
				continue // where it stands, not the whole past
			}
			if f.json {
				if err := printJSON(c, ev); err != nil {
					return err
				}
				continue
			}
			alarm := ""
			if ev.Alarm {
				alarm = "ALARM "
			}
			fmt.Fprintf(c.OutOrStdout(), "%s  %s%s\n", ev.Time.Local().Format(time.DateTime), alarm, ev.Text)
		}
		if page.Next == since {
			first = false
		}
		since = page.Next
	}
	return nil
}

func hostsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "hosts [CHANNEL]",
		Short: "list hosts: what they run, what they should run, why they wait",
		Args:  cobra.MaximumNArgs(1),
	}
	f := addClientFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return withClient(f, func(client *api.Client) error {
			call := api.Call{Path: "/api/v1/hosts", MaxBody: 256 << 20}
			if len(args) == 1 {
				call.Query = url.Values{"channel": {args[0]}}
			}
			a, err := client.Do(c.Context(), call)
			if err != nil {
				return err
			}
			var list hostList
			if err := a.Decode(&list); err != nil {
				return err
			}
			if f.json {
				return printJSON(c, list.Hosts)
			}
			return hostTable(c, list.Hosts)
		})
	}
	return c
}

func hostTable(c *cobra.Command, hosts []api.Host) error {
	return table(c, "HOST\tSEEN\tSTATE\tSEQ\tWANTED\tCURRENT\tNOTES", func(row func(...any)) {
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
				notes = append(notes, waitingText(h.WaitingFor))
			}
			row(h.Host, seen, state, seq, h.WantedSeq, current, strings.Join(notes, "; "))
		}
	})
}

func statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status [CHANNEL]",
		Short: "sum up channels: how many hosts run the last release",
		Args:  cobra.MaximumNArgs(1),
	}
	f := addClientFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return withClient(f, func(client *api.Client) error {
			call := api.Call{Path: "/api/v1/hosts", MaxBody: 256 << 20}
			if len(args) == 1 {
				call.Query = url.Values{"channel": {args[0]}}
			}
			a, err := client.Do(c.Context(), call)
			if err != nil {
				return err
			}
			var list hostList
			if err := a.Decode(&list); err != nil {
				return err
			}
			sums := summarise(list.Hosts)
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
