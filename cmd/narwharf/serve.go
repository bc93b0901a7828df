package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/server"
	"narwharf/cmd/narwharf/server/setup"
	"narwharf/hooks/serverconfig"
)

func initCommand() *cobra.Command {
	c := command.New("init DIR", "make a folder with a configuration, a signing key and an upload token", 1, 1,
		`Makes what a first try needs, in DIR, which is also the data_dir:

    config.toml          the configuration, with comments
    keys/NAME.sec .pub   a signing key, and what clients trust
    upload-token         a token with the scope push
    netrc                the same token, as nix copy wants it

If this machine has a Nix store that can be read, config.toml says that it is
served. It never overwrites: if one of them is there, it says so and does nothing.

    narwharf init ./data
    narwharf serve --config ./data/config.toml`)
	name := c.Flags().String("key-name", "", "`NAME` of the signing key (default: this machine's name and \"-1\")")
	listen := c.Flags().String("listen", "127.0.0.1:8080", "`ADDRESS` to serve on: host:port or unix:PATH")
	root := c.Flags().String("store-root", "", "`DIR` under which the Nix store to serve lies, as in Nix's local?root= (default: this machine's own)")
	c.RunE = func(c *cobra.Command, args []string) error {
		dir, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		return setup.Make(c.Context(), c.OutOrStdout(), dir, *name, *listen, *root, command.CallerName())
	}
	return c
}

func serveCommand() *cobra.Command {
	c := command.New("serve", "run the cache", 0, 0,
		`Serves the cache that the configuration describes until it gets SIGTERM or
SIGINT; then it lets uploads that are being received finish. A second signal
ends it at once. On SIGHUP it reads the secret keys again.

    narwharf serve --config ./data/config.toml`)
	config := command.ConfigFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := serverconfig.Load(*config)
		if err != nil {
			return err
		}
		var level slog.Level
		if err := level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
			return fmt.Errorf("log.level: %q is none of debug, info, warn, error", cfg.Log.Level)
		}
		log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
		return server.Serve(c.Context(), cfg, versionText(), log, c.OutOrStdout())
	}
	return c
}
