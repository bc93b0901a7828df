// Package uploadhook has Nix's post-build-hook, and the service that sends what it queued.
package uploadhook

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/outbox"
	"narwharf/narinfo/clip"
)

// Command is the command upload-hook.
func Command() *cobra.Command {
	c := command.New("upload-hook", "queue what Nix has built for upload: its post-build-hook", 0, 0,
		`Nix calls it after each build, with the paths in $OUT_PATHS. It notes them in a folder,
makes them roots, and returns: a build waits for no network, and a failure here is
words in its log and no failure of the build. Paths stay until they are sent, also
over a restart. In nix.conf, and beside it the service that sends them:

    post-build-hook = /etc/nix/upload-hook       # a script: exec narwharf upload-hook
    narwharf upload-hook run --to https://cache.example.org --netrc-file /etc/nix/netrc
    narwharf upload-hook status`)
	queue := queueFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		paths, err := strings.Fields(os.Getenv("OUT_PATHS")), error(nil)
		if drv := os.Getenv("DRV_PATH"); len(paths) == 0 && drv != "" {
			paths, err = outbox.Outputs(drv)
		}
		for _, path := range paths {
			err = errors.Join(err, queue().Add(path))
		}
		if err != nil {
			fmt.Fprintf(c.ErrOrStderr(), "narwharf upload-hook: %v: it is not uploaded by itself; the build goes on\n", err)
		}
		return nil
	}
	c.AddCommand(runCommand(), statusCommand())
	return c
}

// queueFlags adds --queue, and gives the queue that it names.
func queueFlags(c *cobra.Command) func() *outbox.Queue {
	dir := c.Flags().String("queue", "/var/lib/narwharf-upload", "`DIR` of the queue")
	return func() *outbox.Queue {
		return &outbox.Queue{Dir: *dir, NixState: cmp.Or(os.Getenv("NIX_STATE_DIR"), "/nix/var/nix")}
	}
}

func runCommand() *cobra.Command {
	c := command.New("run --to URL", "send what is queued, until told to stop", 0, 0,
		`Calls nix copy for what is queued. What cannot be sent is tried again, after 5 s, then
later each time, up to 10 min, and keeps nothing else from being sent.`)
	queue := queueFlags(c)
	to := c.Flags().String("to", "", "store `URL` to upload to; zstd unless it says a compression")
	netrc := c.Flags().String("netrc-file", "", "`FILE` with the password")
	nix := c.Flags().String("nix", "nix", "the `PROGRAM` nix")
	timeout := c.Flags().Duration("timeout", time.Hour, "how long one call of nix copy may take")
	command.Must(c.MarkFlagRequired("to"))
	c.RunE = func(c *cobra.Command, _ []string) error {
		url, err := storeURL(*to)
		if err != nil {
			return err
		}
		log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
		s := &outbox.Sender{Queue: queue(), Log: log, Copy: func(ctx context.Context, paths []string) error {
			ctx, cancel := context.WithTimeout(ctx, *timeout)
			defer cancel()
			return copyPaths(ctx, *nix, url, *netrc, paths)
		}}
		err = s.Run(c.Context())
		if errors.Is(err, outbox.ErrAnother) {
			return command.Failed{Code: 4, Err: err}
		}
		return err
	}
	return c
}

func storeURL(to string) (string, error) {
	base, query, _ := strings.Cut(to, "?")
	u, err := api.ParseURL(base)
	if err != nil {
		return "", fmt.Errorf("--to: %w", err)
	}
	if !strings.Contains("&"+query, "&compression=") {
		query = strings.Trim(query+"&compression=zstd", "&")
	}
	return u.String() + "?" + query, nil
}

// copyPaths uploads. What Nix would remember of it goes with the call: a path without the cache's
// signature is not taken from there again (NixOS/nix#16175).
func copyPaths(ctx context.Context, nix, to, netrc string, paths []string) error {
	memory, err := os.MkdirTemp("", "narwharf-upload-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(memory) }()
	args := []string{"--extra-experimental-features", "nix-command", "copy", "--to", to}
	if netrc != "" {
		args = append(args, "--netrc-file", netrc)
	}
	cmd := exec.CommandContext(ctx, nix, append(args, paths...)...)
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+memory)
	cmd.WaitDelay = 10 * time.Second
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("nix copy: %w: %s", err, clip.Line(strings.TrimSpace(said.String()), 1000))
	}
	return nil
}

func statusCommand() *cobra.Command {
	c := command.New("status", "list what is queued, since when, and why it was not sent", 0, 0, "")
	queue := queueFlags(c)
	asJSON := c.Flags().Bool("json", false, "print JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		items, err := queue().List()
		switch {
		case err != nil:
			return err
		case *asJSON:
			return terminal.JSON(c.OutOrStdout(), append([]outbox.Item{}, items...))
		case len(items) == 0:
			_, err := fmt.Fprintln(c.OutOrStdout(), "nothing is queued")
			return err
		}
		return terminal.Table(c.OutOrStdout(), "SINCE\tPATH\tERROR", func(row func(...any)) {
			for _, it := range items {
				row(it.Since.UTC().Format(time.DateTime), it.Path, it.Error)
			}
		})
	}
	return c
}
