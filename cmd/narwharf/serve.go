package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/server"
	"narwharf/cmd/narwharf/terminal"
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
		return server.Init(c.Context(), c.OutOrStdout(), dir, *name, *listen, *root, callerName())
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

func fsckCommand() *cobra.Command {
	c := command.New("fsck [--repair]", "check every file of the cache", 0, 0,
		`Reads every NAR and narinfo and checks them: each file's own hash, each narinfo
against its NAR and its references, the index against the files, and that
nothing lies about without an owner. It works beside a running server.

With --repair, damaged files are moved to cache/quarantine in data_dir, so that
the next `+"`nix copy --refresh`"+` uploads them again, and the index is put right.
A NAR that another file or the machine's own store still has is made from that.
What the current release of a channel needs and is lost stays damage: the line
names path and channels, and there is an alarm.

Exit status: 0 clean (or all repaired), 1 damage, 2 it could not look.

    narwharf fsck --config ./data/config.toml`)
	var args server.FsckArgs
	c.Flags().BoolVar(&args.Repair, "repair", false, "move damaged files to quarantine and put the index right")
	return withData(c, func(run runJob, _ []string) error { return run("fsck", args, c.OutOrStdout()) })
}

func rebuildCommand() *cobra.Command {
	c := command.New("rebuild", "make the index anew from the files", 0, 0,
		`Reads all narinfo files and makes the index in narwharf.db anew from them. It
works beside a running server. If narwharf.db itself is damaged, stop the
server, move the file away and run this.

Where narwharf.db was moved away, tokens come back, too, from their own file, and
channels with releases and policies; hosts report again by themselves. Not in
files, and so not restored: who uploaded a path and when exactly (the file's time
stands in), labels and holds of hosts, which machine each is, the audit log.`)
	return withData(c, func(run runJob, _ []string) error { return run("rebuild", struct{}{}, c.OutOrStdout()) })
}

// runJob runs a job on data_dir, in the server that has it open or here.
type runJob func(name string, args any, out io.Writer) error

// withData makes a command one that works on a data_dir.
func withData(c *cobra.Command, do func(run runJob, args []string) error) *cobra.Command {
	config := command.ConfigFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := serverconfig.Load(*config)
		if err != nil {
			return err
		}
		log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
		return do(func(name string, args any, out io.Writer) error {
			bar := terminal.NewProgress(c.ErrOrStderr())
			defer bar.End()
			exit, err := server.RunJob(bar.With(c.Context()), cfg, versionText(), name, args, bar.Writer(out), log)
			if err == nil && exit != 0 {
				return exitError{code: exit}
			}
			return err
		}, args)
	}
	return c
}
