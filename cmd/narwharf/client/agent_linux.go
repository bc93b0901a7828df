package client

import (
	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/nixos/doctor"
)

// agentCommands are those for machines that are hosts.
func agentCommands() []*cobra.Command {
	c := command.New("agent", "say what keeps this host from following its channel", 0, 0,
		`Reads the agent's configuration and journal, asks its servers with its token, looks
for room, for what else changes the system, and at the way to the server. It needs
no running agent. What it would do next says narwharf agent once --dry-run.`)
	config := c.Flags().String("config", "/etc/narwharf/agent.toml", "the agent's configuration `FILE`")
	asJSON := c.Flags().Bool("json", false, "print JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return show(c.OutOrStdout(), doctor.Look(c.Context(), *config, c.Root().Version), *asJSON)
	}
	return []*cobra.Command{c}
}
