// Package agent has the commands of the part that runs on every host.
package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/configfile"
	"narwharf/nixos"
	"narwharf/nixos/config"
	"narwharf/nixos/journal"
	"narwharf/nixos/linux"
	"narwharf/nixos/linux/systemd"
	"narwharf/nixos/remote"
)

// Command is the command agent.
func Command() *cobra.Command {
	return command.Group("agent", "follow a channel: the part that runs on every host",
		`The agent waits for the release of its channel, fetches the closure, switches,
proves that the host is well, and commits, or goes back. docs/agent.md explains
its states and its configuration.

    narwharf agent run --config /etc/narwharf/agent.toml`,
		runCommand(), onceCommand(), statusCommand(), pauseCommand(), resumeCommand(), probeCommand(), recordCommand())
}

// withAgent makes a command one that reads the agent's configuration.
func withAgent(c *cobra.Command, run func(o linux.Options) error) *cobra.Command {
	file := c.Flags().String("config", "/etc/narwharf/agent.toml", "the agent's configuration `FILE`")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := config.Load(*file)
		if err != nil {
			return err
		}
		log := linux.NewLog(c.ErrOrStderr())
		for _, name := range cfg.ReadableSecrets() {
			log.Warn("every user of this host can read a token: chmod o-rwx "+name, "alarm", "secret", "file", name)
		}
		return run(linux.Options{Config: cfg, Version: c.Root().Version, Log: log})
	}
	return c
}

func runCommand() *cobra.Command {
	c := command.New("run", "follow the channel until told to stop", 0, 0,
		`Runs until SIGTERM or SIGINT. A switch that is under way goes on without it, and
the next agent takes it up again. While another agent runs here, it waits.

When its own unit file, a file of the unit's environment or its configuration has
changed and nothing is under way, it ends with exit status 0, and the service
manager has to start it again (Restart=always, as the NixOS module says).`)
	return withAgent(c, func(o linux.Options) error {
		err := linux.Run(c.Context(), o)
		switch {
		case errors.Is(err, nixos.ErrRestart):
			fmt.Fprintln(c.ErrOrStderr(), "narwharf agent: "+err.Error()+": ending, to be started again")
			return nil
		case c.Context().Err() != nil && (errors.Is(err, remote.ErrNotJoined) || errors.Is(err, linux.ErrAnotherAgent)):
			return nil // told to stop, before it had anything to do
		}
		return err
	})
}

func onceCommand() *cobra.Command {
	c := command.New("once", "do what the channel says now, and end", 0, 0,
		`For first boots and cron. Prints the state that the host ended in. Exit status:
0 it is what the channel says (ok, testing, armed, dry_run_done, or there is
nothing for this host), 3 it is not (reverted, failed, rejected, …), 4 another
agent runs here, 5 the time was over.

With --dry-run nothing is done: it prints what would be, and is the way to see what
a first adoption of an existing host would change. Exit status 0, or 3 if it would
not work.

    narwharf agent once --dry-run`)
	limit := configfile.Duration(30 * time.Minute)
	c.Flags().Var(&limit, "timeout", "`TIME` after which it gives up; what is under way is taken up by the next agent")
	dry := c.Flags().Bool("dry-run", false, "only print what would change")
	return withAgent(c, func(o linux.Options) error {
		ctx, cancel := context.WithTimeout(c.Context(), time.Duration(limit))
		defer cancel()
		if *dry {
			p, err := linux.DryRun(ctx, o)
			if err == nil {
				_, err = fmt.Fprint(c.OutOrStdout(), p)
			}
			if err == nil && p.Error != "" {
				err = command.Failed{Code: 3, Err: errors.New("it would not work out")}
			}
			return err
		}
		state, why, err := linux.Once(ctx, o)
		switch {
		case errors.Is(err, nixos.ErrNotSettled):
			return command.Failed{Code: 5, Err: fmt.Errorf("%w: it is %s", err, state)}
		case errors.Is(err, remote.ErrNotJoined):
			return command.Failed{Code: 5, Err: err}
		case errors.Is(err, linux.ErrAnotherAgent):
			return command.Failed{Code: 4, Err: err}
		case err != nil:
			return err
		}
		fmt.Fprintln(c.OutOrStdout(), state)
		switch state {
		case api.OK, api.Testing, api.Armed, api.DryRunDone, api.Idle, api.NotInRelease, api.TestOver:
			return nil
		}
		return command.Failed{Code: 3, Err: errors.New(why)}
	})
}

func pauseCommand() *cobra.Command {
	c := command.New("pause --reason TEXT", "let the host begin nothing new", 0, 0,
		`What is under way comes to its end. The server shows that the host is paused, by
whom and why.

    narwharf agent pause --reason 'replacing a disk' --until 4h`)
	reason := c.Flags().String("reason", "", "`TEXT` that others see")
	until := c.Flags().String("until", "", "`TIME` from now after which it ends by itself, as 4h or 2d")
	command.Must(c.MarkFlagRequired("reason"))
	return withAgent(c, func(o linux.Options) error {
		p, err := command.NewHold(*reason, command.CallerName(), *until)
		if err != nil {
			return err
		}
		return linux.WritePause(o.Config.StateDir, p)
	})
}

func resumeCommand() *cobra.Command {
	c := command.New("resume", "end a pause", 0, 0, "")
	return withAgent(c, func(o linux.Options) error { return linux.WritePause(o.Config.StateDir, nil) })
}

func probeCommand() *cobra.Command {
	c := command.New("probe --report FILE", "confirm a system on trial, as its own agent", 0, 0,
		`The running agent calls this of the new system, with the new system's
configuration: it sends the report in FILE over a connection of its own. Exit
status: 0 the server took it, 3 it refused, 4 it could not be reached, 2 this
agent or its configuration is broken.`)
	report := c.Flags().String("report", "", "`FILE` with the report")
	command.Must(c.MarkFlagRequired("report"))
	return withAgent(c, func(o linux.Options) error {
		ctx, cancel := context.WithTimeout(c.Context(), 20*time.Second)
		defer cancel()
		exit, err := linux.Probe(ctx, o, *report)
		if exit != 0 {
			return command.Failed{Code: exit, Err: err}
		}
		return err
	})
}

func recordCommand() *cobra.Command {
	c := command.New("record DIR begin|end", "note how a run of switch-to-configuration went; systemd calls it", 2, 2, "")
	c.Hidden = true
	c.RunE = func(_ *cobra.Command, args []string) error { return systemd.Record(args[0], args[1], os.Getenv) }
	return c
}

func statusCommand() *cobra.Command {
	c := command.New("status", "print what the agent on this host is doing", 0, 0,
		`Prints state, release and reasons from the agent's journal, and what runs and boots
as it is now. It asks no server and needs no running agent.`)
	asJSON := c.Flags().Bool("json", false, "print the whole journal as JSON")
	return withAgent(c, func(o linux.Options) error {
		j, err := journal.Read(o.Config.StateDir)
		if err != nil {
			return err
		}
		if *asJSON {
			return terminal.JSON(c.OutOrStdout(), j)
		}
		_, err = fmt.Fprint(c.OutOrStdout(), linux.Status(o.Config, j, time.Now()))
		return err
	})
}
