package client

import "github.com/spf13/cobra"

func agentCommands() []*cobra.Command { return nil }
