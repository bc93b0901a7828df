package data

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cache/copies/backup"
	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/serverconfig"
	"narwharf/narinfo/clip"
)

// Backup is the command backup.
func Backup() *cobra.Command {
	c := command.New("backup DIR", "copy data_dir, while the server runs", 1, 1,
		`Makes DIR a copy of data_dir as it was at one moment, beside a running server or
without one: what was uploaded, channels, hosts, tokens, and the keys and the
configuration if they lie in data_dir. So guard it like data_dir. Packed copies of
the machine's own store are left out: they are made again.

On the file system of data_dir, files of the cache are hard links and take no room;
elsewhere they are copied. The next backup into the same folder copies what is new
and removes what is gone; one that was stopped goes on.

    narwharf backup /mnt/disk/narwharf
    narwharf restore /mnt/disk/narwharf /var/lib/narwharf`)
	asJSON := c.Flags().Bool("json", false, "print JSON")
	return withConfig(c, func(cfg *serverconfig.Config, run Job, args []string) error {
		if cfg.Storage.Content != "" {
			fmt.Fprintf(c.ErrOrStderr(), "the content files are not in data_dir and so not in this backup: back up %s by what it has for that, after this\n", cfg.Storage.Content)
		}
		dir, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		var name strings.Builder
		if err := run("snapshot", struct{}{}, &name); err != nil {
			return err
		}
		snapshot := strings.TrimSpace(name.String())
		defer func() { _ = os.Remove(snapshot) }() // else a server that starts does
		bar := terminal.NewProgress(c.ErrOrStderr())
		defer bar.End()
		said := bar.Writer(c.ErrOrStderr())
		r, err := backup.Take(bar.With(c.Context()), backup.Options{
			DataDir: cfg.DataDir, Snapshot: snapshot, Dir: dir, Narwharf: c.Root().Version,
			Report: func(line string) { fmt.Fprintln(said, line) },
		})
		bar.End()
		if err != nil {
			return fmt.Errorf("backup: %w", err)
		}
		if *asJSON {
			return terminal.JSON(c.OutOrStdout(), r)
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "%s has %d files: %d linked and %d copied now (%.1f MiB), %d removed\n", dir, r.Files, r.Linked, r.Copied, float64(r.Bytes)/(1<<20), r.Removed)
		if err == nil && r.Lost > 0 {
			return fmt.Errorf("%s without a NAR any more, and the backup has none either: see narwharf fsck", clip.Count(r.Lost, "path"))
		}
		return err
	})
}

// Restore is the command restore.
func Restore() *cobra.Command {
	c := command.New("restore BACKUP DIR", "make a data_dir of a backup", 2, 2,
		`Makes DIR what data_dir was when narwharf backup copied it. Nothing is overwritten:
DIR is absent or empty. A restore that was stopped is run again, and a server does
not start on it before it is done. The backup stays as it is.

What happened since the backup is gone: uploads are made again, and hosts that run
a later release show it to the server, which takes it over with an alarm.

    narwharf restore /mnt/disk/narwharf /var/lib/narwharf
    narwharf serve --config /etc/narwharf/config.toml`)
	c.RunE = func(c *cobra.Command, args []string) error {
		bar := terminal.NewProgress(c.ErrOrStderr())
		defer bar.End()
		r, made, err := backup.Restore(bar.With(c.Context()), args[0], args[1])
		bar.End()
		if err != nil {
			return fmt.Errorf("restore: %w", err)
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "%s is as data_dir was on %s: %d files\nNext: serve it (data_dir in config.toml names it), then narwharf fsck\n", args[1], made.Format(time.RFC3339), r.Files)
		return err
	}
	return c
}
