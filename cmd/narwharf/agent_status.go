package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"narwharf/nixos/config"
	"narwharf/nixos/journal"
	"narwharf/nixos/linux"
)

func agentStatusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "print what the agent on this host is doing",
		Long: `Prints state, release and reasons from the agent's journal, and what runs and boots
as it is now. It asks no server and needs no running agent.`,
		Args: cobra.NoArgs,
	}
	file := agentConfigFlag(c)
	asJSON := c.Flags().Bool("json", false, "print the whole journal as JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := config.Load(*file)
		if err != nil {
			return err
		}
		j, err := journal.Read(cfg.StateDir)
		if err != nil {
			return err
		}
		if *asJSON {
			text, err := json.MarshalIndent(j, "", "  ")
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), string(text))
			return err
		}
		_, err = fmt.Fprint(c.OutOrStdout(), linux.Status(cfg, j, time.Now()))
		return err
	}
	return c
}
