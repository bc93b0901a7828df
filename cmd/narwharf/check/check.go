// Package check is narwharf check-config: whether the program takes a configuration,
// without the machine that it is for.
package check

import (
	"fmt"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/hooks/serverconfig"
	"narwharf/nixos/config"
)

// loaders read and check each kind of configuration.
var loaders = map[string]func(file string) error{
	"server": func(file string) error { _, err := serverconfig.Load(file); return err },
	"agent":  func(file string) error { _, err := config.Load(file); return err },
}

// Command is the command check-config.
func Command() *cobra.Command {
	c := command.New("check-config server|agent FILE", "say whether a configuration is one that narwharf takes", 2, -1,
		`Reads configurations of the server or of the agent as those do when they start, and
opens no other file: neither keys nor tokens have to be here. The NixOS modules call it
while a system is built. Exit status: 0 all are good, 2 one is not, and why is said.

    narwharf check-config agent /etc/narwharf/agent.toml`)
	c.RunE = func(_ *cobra.Command, args []string) error {
		load, ok := loaders[args[0]]
		if !ok {
			return fmt.Errorf("check-config: %q is neither server nor agent: whose configuration is it?", args[0])
		}
		for _, file := range args[1:] {
			if err := load(file); err != nil {
				return err
			}
		}
		return nil
	}
	return c
}
