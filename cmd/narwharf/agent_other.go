//go:build !linux

package main

import "github.com/spf13/cobra"

func agentCommand() *cobra.Command {
	return &cobra.Command{Use: "agent", Short: "follow a channel: hosts run NixOS, so not on this machine", Args: cobra.NoArgs}
}
