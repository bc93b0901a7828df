//go:build !linux

package client

import "github.com/spf13/cobra"

// agentCommands are none: hosts run NixOS.
func agentCommands() []*cobra.Command { return nil }
