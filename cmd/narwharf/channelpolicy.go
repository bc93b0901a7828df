package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

func channelPolicyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "policy CHANNEL",
		Short: "show or set when a channel's hosts may act, and how many may reboot",
		Long: `Prints the policy of a channel as JSON, {} if it has none. With --file it is
replaced by what the file says; what that leaves out is as if never said.

    narwharf channel policy web > policy.json
    narwharf channel policy web --file policy.json

    {"windows": [{"days": ["sat", "sun"], "from": "22:00", "to": "04:00", "zone": "Europe/Berlin"}],
     "reboot_slots": 1, "reboot_timeout_s": 900,
     "confirm_timeout_s": 300, "probation_min_s": 60, "min_agent": "0.5.0"}

Without reboot_slots the server lets no host reboot for a release that says
auto: where that needs a reboot the host stays armed until a person reboots it,
and narwharf host show says so. (By promote --action reboot any number may at a
time.) With "reboot_slots": 1 hosts reboot by themselves, one of a group at a
time; a group is the hosts with one label reboot_group, else those of the channel.

docs/channels.md says what each of them does. {"windows": []} is the policy
without rules.`,
		Args: cobra.ExactArgs(1),
	}
	file := c.Flags().String("file", "", "`FILE` with the policy to set; - for stdin")
	return withServer(c, func(s *session, args []string) error {
		var text json.RawMessage
		var err error
		if *file != "" {
			if text, err = readPolicy(c, *file); err != nil {
				return err
			}
		}
		p, err := s.ChannelPolicy(s.ctx, args[0], text)
		if err != nil {
			return err
		}
		return printJSON(s.out, p)
	})
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
