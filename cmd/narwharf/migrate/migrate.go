// Package migrate is the command that moves a cache: from the data_dir of one server to a bucket and a database, and
// back. See docs/design/080-moving-a-cache.md.
package migrate

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/server/storage"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/serverconfig"
)

type flags struct {
	config, to          string
	ahead, cancel, over bool
	asJSON              bool
	jobs                int
}

// Command is narwharf migrate.
func Command() *cobra.Command {
	c := command.New("migrate --to CONFIG", "move a cache to a bucket and a database, or back", 0, 0,
		`Copies content files and state from where the configuration of --config has them to
where the one of --to does: from data_dir to S3 and PostgreSQL, back, or one of the
two alone. The place they go to is empty, or was begun by an earlier run.

What is there is copied while the old server goes on. Then that takes no writes, for as
long as it takes to copy what came meanwhile and to compare every file (NARs by size,
since their names are their hashes and they were hashed on the way; all else by its
bytes) and every row. Reads go on; uploads, promotes and reports are told in words
to try again. At the end the old side stays like that, and a server can be started on
the new one. If it fails, the old side takes writes again.

It may be killed at any point: run it again, and it goes on. --cancel has the old side
take writes again, after a kill or when the new one is not wanted after all. Run it as the user of
the server, on its machine. --ahead copies and stops there: run it some days before.

Exit status: 0 done, 1 done but for files that are damaged, 2 it could not be done.

    narwharf migrate --config old.toml --to new.toml --ahead
    narwharf migrate --config old.toml --to new.toml
    narwharf serve --config new.toml`)
	f := &flags{}
	c.Flags().BoolVar(&f.ahead, "ahead", false, "copy what is there now, and leave the old side as it is")
	c.Flags().BoolVar(&f.cancel, "cancel", false, "have the old side take writes again")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
	c.Flags().IntVar(&f.jobs, "jobs", 16, "how many files are copied at once")
	c.Flags().BoolVar(&f.over, "over", false, "what is at the new place goes, where it differs")
	c.Flags().StringVar(&f.to, "to", "", "the configuration `FILE` of the new place")
	config := command.ConfigFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		f.config = *config
		return f.run(c)
	}
	return c
}

func (f *flags) run(c *cobra.Command) (err error) {
	log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	m := &migration{over: f.over, jobs: f.jobs, log: log}
	if m.old, err = serverconfig.Load(f.config); err != nil {
		return err
	}
	bar := terminal.NewProgress(c.ErrOrStderr())
	defer bar.End()
	ctx := bar.With(c.Context())
	if f.cancel {
		return m.cancel(c)
	}
	if f.to == "" {
		return errors.New("migrate: --to must be given: the configuration of the new place; or --cancel")
	}
	if m.new, err = serverconfig.Load(f.to); err != nil {
		return err
	}
	if err := m.check(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	if err := m.open(ctx, c.Root().Version); err != nil {
		return err
	}
	if err = m.ahead(ctx); err == nil && !f.ahead {
		err = m.finish(ctx)
	}
	bar.End()
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("stopped; run it again, and it goes on: %w", err)
	}
	if err != nil {
		return err
	}
	return m.say(c, !f.ahead, f.asJSON)
}

// check refuses configurations that do not go together.
func (m *migration) check() error {
	sameContent := storage.Place(m.old) == storage.Place(m.new)
	switch {
	case m.sameState() && sameContent:
		return fmt.Errorf("there is nothing to move: both configurations name %s", storage.Place(m.old))
	case !m.sameState() && m.old.DataDir == m.new.DataDir:
		return fmt.Errorf("data_dir of the new configuration has to be another folder than %s: a server has one state there", m.old.DataDir)
	case m.old.Cache.StoreDir != m.new.Cache.StoreDir:
		return fmt.Errorf("the old configuration is for paths of %s, and the new one of %s", m.old.Cache.StoreDir, m.new.Cache.StoreDir)
	}
	if m.old.Storage.Shared() {
		return nil
	}
	return sameUser(m.old.DataDir)
}

// cancel has the old side take writes again.
func (m *migration) cancel(c *cobra.Command) (err error) {
	if m.from, err = openSource(c.Context(), m.old, c.Root().Version, m.log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.from.close()) }()
	if err := m.from.freeze(c.Context(), nil); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s takes writes again\n", m.from)
	return err
}

// say tells what was done, and what comes next.
func (m *migration) say(c *cobra.Command, done, asJSON bool) error {
	r := Result{Done: done}
	if m.toFiles != nil {
		r.Content = &m.contentAll
	}
	if m.to != nil {
		r.State = &m.stateAll
	}
	if done {
		r.ReadOnlyMS = time.Since(m.wasFrozen).Milliseconds()
	}
	out := c.OutOrStdout()
	if asJSON {
		if err := terminal.JSON(out, r); err != nil {
			return err
		}
	} else if err := m.words(out, r); err != nil {
		return err
	}
	if len(m.failed) > 0 {
		return command.Exit(1)
	}
	return nil
}

func (m *migration) words(out io.Writer, r Result) (err error) {
	print := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(out, format, args...)
		}
	}
	for _, f := range m.failed {
		print("left out: %s: %s\n", f.Name, f.Error)
	}
	if r.Content != nil {
		print("content files: %d (%.1f MiB) are in %s, %d were written or removed there\n", r.Content.Files, float64(r.Content.Bytes)/(1<<20), storage.Place(m.new), r.Content.Changed)
	}
	if r.State != nil {
		print("state: %d rows (%.1f MiB) are in %s, %d were written or removed there\n", r.State.Rows, float64(r.State.Bytes)/(1<<20), m.to, r.State.Changed)
	}
	if !r.Done {
		print("The old side goes on as before. Run it again without --ahead when it shall move.\n")
		return err
	}
	print("All was compared; the old side took no writes for %s, and takes none from now on.\nNext:\n", (time.Duration(r.ReadOnlyMS) * time.Millisecond).Round(100*time.Millisecond))
	if m.to == nil {
		print("    stop the server (all that share the state)\n")
	}
	if own := filepath.Join(m.new.DataDir, "cache"); m.toFiles != nil && own == storage.Place(m.old) {
		print("    mv %s %[1]s.moved    # it may be deleted later\n", own)
	}
	print("    narwharf serve --config %s\n    narwharf fsck --config %[1]s\n", m.new.Path())
	if m.to != nil {
		print("then send clients to the new server, and stop the old one. If it is not to be after all:\n    narwharf migrate --cancel --config %s\n", m.old.Path())
	}
	return err
}

// sameUser refuses to write as root what the server's user is to have.
func sameUser(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("data_dir of the old configuration: %w", err)
	}
	if uid := owner(st); uid >= 0 && uid != os.Geteuid() {
		return fmt.Errorf("data_dir %s is that of another user: run it as that one (sudo -u '#%d' narwharf migrate …)", dir, uid)
	}
	return nil
}
