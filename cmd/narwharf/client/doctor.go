package client

import (
	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/hooks/doctor/server"
)

func doctorCommand() *cobra.Command {
	return command.Group("doctor", "say what is wrong with a client, a host or a server, and what to type",
		`Looks, changes nothing, and prints one line for each thing that it looked at: ok, note,
warning or fault, and below what is wrong the lines to type. Exit status: 0 nothing
is at fault, 1 something is, 2 it could not look.

    narwharf doctor client https://cache.example.org
    narwharf doctor agent
    narwharf doctor server --config /etc/narwharf/config.toml`,
		append([]*cobra.Command{clientCommand(), serverCommand()}, agentCommands()...)...)
}

func clientCommand() *cobra.Command {
	c := command.New("client [SERVER]", "say why Nix on this machine does not substitute from a cache", 0, 1,
		`Reads nix.conf, netrc and what Nix remembers, as Nix does, asks the cache for a
path that every Narwharf has, and looks whether a signature of it would be taken.
Of what stands between it says whether uploads are collected before they are
handed on, whether a 404 is kept, and whether broken downloads can go on.

Root's Nix and that of another user are different clients: run it as who has the
trouble. Beside nix-daemon, as root it sees more.`)
	f := command.AddClientFlags(c)
	path := c.Flags().String("path", "", "a store `PATH` that the cache has, to be tried (default: one that every Narwharf has)")
	c.RunE = func(c *cobra.Command, args []string) error {
		look, _, err := before(c, f, args)
		if err != nil {
			return err
		}
		look.Path = *path
		return show(c.OutOrStdout(), look.Look(c.Context()), f.JSON)
	}
	return c
}

func serverCommand() *cobra.Command {
	c := command.New("server", "say what is wrong with the server of this machine", 0, 0,
		`Reads its configuration, keys and certificate, looks at its disk and at the machine's
store, and asks it where it listens and where clients find it: whether it has read
its keys, and what proxies and caches in front do. Run it as the server's user, or
as root.`)
	config := command.ConfigFlag(c)
	asJSON := c.Flags().Bool("json", false, "print JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return show(c.OutOrStdout(), server.Look(c.Context(), *config), *asJSON)
	}
	return c
}
