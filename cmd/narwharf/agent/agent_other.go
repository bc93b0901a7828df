//go:build !linux

// Package agent has the commands of the part that runs on every host.
package agent

import "github.com/spf13/cobra"

// Command says that there is none here.
func Command() *cobra.Command {
	return &cobra.Command{Use: "agent", Short: "follow a channel: hosts run NixOS, so not on this machine", Args: cobra.NoArgs}
}
