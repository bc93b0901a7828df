package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"narwharf/hooks/api"
	"narwharf/nixos"
)

func agentCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "agent",
		Short: "follow a channel: the part that runs on every host",
		Long: `The agent waits for the release of its channel, fetches the closure, switches,
proves that the host is well, and commits, or goes back. docs/agent.md explains
its states and its configuration.

    narwharf agent run --config /etc/narwharf/agent.toml`,
	}
	c.AddCommand(agentRunCommand(), agentOnceCommand(), agentStatusCommand(), agentPauseCommand(), agentResumeCommand(), agentProbeCommand(), agentRecordCommand())
	return c
}

const agentConfig = "/etc/narwharf/agent.toml"

func agentConfigFlag(c *cobra.Command) *string {
	return c.Flags().String("config", agentConfig, "the agent's configuration `FILE`")
}

// withAgent sets an agent up, and takes it down again.
func withAgent(ctx context.Context, path string, stderr io.Writer, do func(*nixos.Agent, *nixos.Linux) error) error {
	cfg, err := nixos.LoadConfig(path)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey && os.Getenv("JOURNAL_STREAM") != "" {
			return slog.Attr{} // the journal has the time
		}
		return a
	}}))
	client, err := nixos.NewClient(ctx, cfg, versionText(), log)
	if err != nil {
		return err
	}
	host, err := nixos.NewLinux(cfg, client, log)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		host.Close(ctx)
	}()
	release, err := host.Lock()
	if err != nil {
		return err
	}
	defer release()
	agent := nixos.NewAgent(cfg, host, host.Journals(), versionText(), log)
	if cfg.Metrics.Textfile != "" {
		agent.Observe = (&nixos.Textfile{Name: cfg.Metrics.Textfile, Log: log}).Observe
	}
	return do(agent, host)
}

func agentRunCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run",
		Short: "follow the channel until told to stop",
		Long: `Runs until SIGTERM or SIGINT. A switch that is under way goes on without it, and
the next agent takes it up again.

When its own unit file or configuration has changed and nothing is under way, it
ends with exit status 0, and the service manager has to start it again
(Restart=always, as the NixOS module says).`,
		Args: cobra.NoArgs,
	}
	config := agentConfigFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		err := withAgent(c.Context(), *config, c.ErrOrStderr(), func(a *nixos.Agent, h *nixos.Linux) error {
			err := a.Run(c.Context(), h.UnitChanged)
			if errors.Is(err, nixos.ErrRestart) {
				fmt.Fprintln(c.ErrOrStderr(), "narwharf agent: "+err.Error()+": ending, to be started again")
				return nil
			}
			return err
		})
		if errors.Is(err, nixos.ErrNotJoined) && c.Context().Err() != nil {
			return nil // told to stop, before it had anything to do
		}
		return err
	}
	return c
}

func agentOnceCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "once",
		Short: "do what the channel says now, and end",
		Long: `For first boots and cron. Prints the state that the host ended in. Exit status:
0 it is what the channel says (ok, testing, armed, dry_run_done, or there is
nothing for this host), 3 it is not (reverted, failed, rejected, …), 5 the time
was over.`,
		Args: cobra.NoArgs,
	}
	config := agentConfigFlag(c)
	limit := c.Flags().Duration("timeout", 30*time.Minute, "`TIME` after which it gives up; what is under way is taken up by the next agent")
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(c.Context(), *limit)
		defer cancel()
		err := withAgent(ctx, *config, c.ErrOrStderr(), func(a *nixos.Agent, _ *nixos.Linux) error {
			state, err := a.Once(ctx)
			if errors.Is(err, nixos.ErrNotSettled) {
				return exitError{5, fmt.Errorf("%w: it is %s", err, state)}
			}
			if err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), state)
			switch state {
			case api.OK, api.Testing, api.Armed, api.DryRunDone, api.Idle, api.NotInRelease, api.TestOver:
				return nil
			}
			return exitError{3, errors.New(a.Journal().Error)}
		})
		if errors.Is(err, nixos.ErrNotJoined) {
			return exitError{5, err}
		}
		return err
	}
	return c
}

func agentStatusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "print what the agent on this host is doing",
		Args:  cobra.NoArgs,
	}
	config := agentConfigFlag(c)
	asJSON := c.Flags().Bool("json", false, "print the whole journal as JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := nixos.LoadConfig(*config)
		if err != nil {
			return err
		}
		j, err := nixos.ReadJournal(cfg.StateDir)
		if err != nil {
			return err
		}
		out := c.OutOrStdout()
		if *asJSON {
			text, err := json.MarshalIndent(j, "", "  ")
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(out, string(text))
			return err
		}
		fmt.Fprintf(out, "state      %s\nchannel    %s (%s)\nseq        %d\n", j.State, cfg.Channel, cfg.Origin, j.Seq)
		line := func(name, value string) {
			if value != "" {
				fmt.Fprintf(out, "%-10s %s\n", name, value)
			}
		}
		line("error", j.Error)
		line("alarm", j.Alarm)
		if j.WaitingFor != nil {
			line("waits for", fmt.Sprintf("%s: %s", j.WaitingFor.Kind, j.WaitingFor.Detail))
		}
		if a := j.Attempt; a != nil {
			line("wanted", a.Path)
			line("action", string(a.Action))
			line("attempt", a.ID)
		}
		line("confirmed", j.Confirmed)
		if current, err := os.Readlink(filepath.Join(cfg.RunDir, "current-system")); err == nil {
			line("current", current)
		}
		if p, err := nixos.ReadPause(cfg.StateDir, time.Now()); err == nil && p != nil {
			until := "until narwharf agent resume"
			if p.Until != nil {
				until = "until " + p.Until.Format(time.RFC3339)
			}
			line("paused", fmt.Sprintf("%s by %s: %s", until, p.By, p.Reason))
		}
		return nil
	}
	return c
}

func agentPauseCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "pause --reason TEXT",
		Short: "let the host begin nothing new",
		Long: `What is under way comes to its end. The server shows that the host is paused, by
whom and why.

    narwharf agent pause --reason 'replacing a disk' --until 4h`,
		Args: cobra.NoArgs,
	}
	config := agentConfigFlag(c)
	reason := c.Flags().String("reason", "", "`TEXT` that others see")
	until := c.Flags().String("until", "", "`TIME` from now after which it ends by itself, as 4h or 2d")
	must(c.MarkFlagRequired("reason"))
	c.RunE = func(*cobra.Command, []string) error {
		cfg, err := nixos.LoadConfig(*config)
		if err != nil {
			return err
		}
		p := &api.Hold{Reason: *reason, By: callerName()}
		if *until != "" {
			d, err := parseAge(*until)
			if err != nil {
				return fmt.Errorf("--until: %w", err)
			}
			t := time.Now().Add(d).UTC().Truncate(time.Second)
			p.Until = &t
		}
		return nixos.WritePause(cfg.StateDir, p)
	}
	return c
}

func agentResumeCommand() *cobra.Command {
	c := &cobra.Command{Use: "resume", Short: "end a pause", Args: cobra.NoArgs}
	config := agentConfigFlag(c)
	c.RunE = func(*cobra.Command, []string) error {
		cfg, err := nixos.LoadConfig(*config)
		if err != nil {
			return err
		}
		return nixos.WritePause(cfg.StateDir, nil)
	}
	return c
}

func agentProbeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "probe --report FILE",
		Short: "confirm a system on trial, as its own agent",
		Long: `The running agent calls this of the new system, with the new system's
configuration: it sends the report in FILE over a connection of its own. Exit
status: 0 the server took it, 3 it refused, 4 it could not be reached, 2 this
agent or its configuration is broken.`,
		Args: cobra.NoArgs,
	}
	config := agentConfigFlag(c)
	report := c.Flags().String("report", "", "`FILE` with the report")
	must(c.MarkFlagRequired("report"))
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := nixos.LoadConfig(*config)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(c.Context(), 20*time.Second)
		defer cancel()
		client, err := nixos.NewClient(ctx, cfg, versionText(), slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil)))
		if err != nil {
			return err
		}
		if err := nixos.SendProbe(ctx, cfg, client, versionText(), *report); err != nil {
			return exitError{nixos.ProbeExit(err), err}
		}
		return nil
	}
	return c
}

func agentRecordCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "record DIR begin|end",
		Short:  "note how a run of switch-to-configuration went; systemd calls it",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE:   func(_ *cobra.Command, args []string) error { return nixos.Record(args[0], args[1], os.Getenv) },
	}
}
