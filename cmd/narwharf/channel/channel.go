// Package channel is the commands about channels: flags in, one call, words out.
package channel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/keys"
	"narwharf/cmd/narwharf/promote"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/api/policy"
	"narwharf/narinfo/clip"
)

// Command is narwharf channel.
func Command(version string) *cobra.Command {
	return command.Group("channel", "list, show and delete channels, and say when their hosts may act and which keys sign", "",
		listCommand(), showCommand(), historyCommand(), policyCommand(), keys.ForChannel(version), promote.RefreshCommand(), deleteCommand())
}

func listCommand() *cobra.Command {
	c := command.New("list", "list the channels", 0, 0, "")
	return command.WithServer(c, func(s *command.Session, _ []string) error {
		list, err := s.Channels(s.Ctx)
		if err != nil {
			return err
		}
		return s.Show(list, func() error {
			return terminal.Table(s.Out, "CHANNEL\tSEQ\tKIND\tPROMOTED\tBY", func(row func(...any)) {
				for _, ch := range list {
					promoted := "deleted"
					if !ch.Deleted {
						promoted = api.TimeText(ch.Promoted)
					}
					row(ch.Channel, ch.Seq, ch.Kind, promoted, terminal.Unknown(ch.By))
				}
			})
		})
	})
}

func showCommand() *cobra.Command {
	c := command.New("show CHANNEL", "show a channel's release", 1, 1, "")
	return command.WithServer(c, func(s *command.Session, args []string) error {
		ch, err := s.Channel(s.Ctx, args[0])
		if err != nil {
			return err
		}
		return s.Show(ch, func() error {
			head, entries, err := ch.Release.Check()
			if err != nil {
				return err
			}
			fmt.Fprintf(s.Out, "channel    %s (%s)\nseq        %d\norigin     %s\npromoted   %s by %s\nkeys       %s (%d must sign)\n",
				ch.Channel, ch.Kind, ch.Seq, head.Origin, api.TimeText(ch.Promoted), terminal.Unknown(ch.By), strings.Join(ch.Keys, "\n           "), ch.Threshold)
			for k, v := range head.Meta {
				fmt.Fprintf(s.Out, "%-10s %s\n", clip.Line(k, 64), clip.Line(v, 4<<10)) // a commit's title, for one
			}
			fmt.Fprintln(s.Out)
			return promote.Entries(s.Out, entries)
		})
	})
}

func historyCommand() *cobra.Command {
	c := command.New("history CHANNEL", "list a channel's releases, newest first", 1, 1, "")
	limit := c.Flags().Int("limit", 20, "how many")
	return command.WithServer(c, func(s *command.Session, args []string) error {
		list, err := s.History(s.Ctx, args[0], *limit)
		if err != nil {
			return err
		}
		return s.Show(list, func() error {
			return terminal.Table(s.Out, "SEQ\tPROMOTED\tBY\tTARGETS\tWHAT", func(row func(...any)) {
				for _, h := range list {
					what := h.Meta["rev"]
					if len(h.Targets) == 1 {
						what = h.Targets[0].StorePath
					}
					if h.Rollback {
						what += " (rollback)"
					}
					if h.Collected {
						what += " (collected)"
					}
					row(h.Seq, api.TimeText(h.Promoted), terminal.Unknown(h.By), len(h.Targets), what)
				}
			})
		})
	})
}

func deleteCommand() *cobra.Command {
	c := command.New("delete CHANNEL", "delete a channel; its hosts keep what they run", 1, 1,
		`Deletes a channel. Its hosts keep what they run, and its seq goes on if it is
promoted again: a seq is used once.`)
	ifSeq := command.IfSeq(c, "delete only if the channel is at this `SEQ`")
	return command.WithServer(c, func(s *command.Session, args []string) error {
		seq := *ifSeq
		if seq < 0 {
			ch, err := s.Channel(s.Ctx, args[0])
			if err != nil {
				return err
			}
			seq = ch.Seq
		}
		if err := s.DeleteChannel(s.Ctx, args[0], seq); err != nil {
			return err
		}
		return s.Show(map[string]any{"deleted": args[0], "seq": seq}, func() error {
			_, err := fmt.Fprintf(s.Out, "deleted %s after seq %d\n", args[0], seq)
			return err
		})
	})
}

func policyCommand() *cobra.Command {
	c := command.New("policy CHANNEL", "show or set how a channel's hosts take a release, and when they may act", 1, 1,
		`Prints the policy of a channel as JSON, {} if it has none. With --file it is
replaced by what the file says; what that leaves out is as if never said.

    narwharf channel policy web > policy.json
    narwharf channel policy web --file policy.json

    {"rollout": {"waves": [{"name": "canary", "select": "canary=true", "max": 1, "bake": "10m"},
                           {"max": "25%"}, {"max": "100%"}],
                 "max_concurrency": "25%", "max_errors": "5%"},
     "requires": {"channel": "staging", "baked": "24h"},
     "windows": [{"days": ["sat", "sun"], "from": "22:00", "to": "04:00", "zone": "Europe/Berlin"}],
     "reboot_slots": 1, "reboot_timeout_s": 900,
     "confirm_timeout_s": 300, "probation_min_s": 60, "min_agent": "0.5.0"}

Without rollout every host begins at once. docs/rollouts.md has policies to copy, and
narwharf simulate --policy FILE tells how one would go.

Without reboot_slots the server lets no host reboot for a release that says
auto: where that needs a reboot the host stays armed until a person reboots it,
and narwharf host show says so. (By promote --action reboot any number may at a
time.) With "reboot_slots": 1 hosts reboot by themselves, one of a group at a
time; a group is the hosts with one label reboot_group, else those of the channel.

docs/channels.md says what each of them does. {"windows": []} is the policy
without rules. A channel may have a policy before its first promote.`)
	file := c.Flags().String("file", "", "`FILE` with the policy to set; - for stdin")
	return command.WithServer(c, func(s *command.Session, args []string) error {
		var text json.RawMessage
		var err error
		if *file != "" {
			if text, err = readPolicy(c, *file); err != nil {
				return err
			}
		}
		p, err := policy.Of(s.Ctx, s.Client, args[0], text)
		if err != nil {
			return err
		}
		for _, words := range p.Warnings {
			fmt.Fprintln(s.Errs, "does it mean that? "+words)
		}
		if err := known(s, args[0]); err != nil {
			return err
		}
		return terminal.JSON(s.Out, p.Channel)
	})
}

// known says that a channel is not there, and which are. It is no error: a policy
// may be set before the first promote.
func known(s *command.Session, name string) error {
	list, err := s.Channels(s.Ctx)
	var e *api.Error
	if errors.As(err, &e) && (e.Kind == api.Forbidden || e.Kind == api.Unauthorized) {
		return nil // who may not look at channels knows what he types
	}
	if err != nil {
		return err
	}
	var names []string
	for _, c := range list {
		if c.Channel == name {
			return nil
		}
		if len(names) < 10 {
			names = append(names, c.Channel)
		}
	}
	text := fmt.Sprintf("there is no channel %s yet", name)
	if names != nil {
		text += "; there is " + strings.Join(names, ", ")
	}
	fmt.Fprintln(s.Errs, text)
	return nil
}

// readPolicy reads a policy as it was written, for the server to find what is
// wrong with it.
func readPolicy(c *cobra.Command, name string) (text json.RawMessage, err error) {
	if name == "-" {
		text, err = io.ReadAll(c.InOrStdin())
	} else {
		text, err = os.ReadFile(name)
	}
	if err == nil && !json.Valid(text) {
		err = fmt.Errorf("%s is not JSON", name)
	}
	if err != nil {
		return nil, fmt.Errorf("--file: %w", err)
	}
	return text, nil
}
