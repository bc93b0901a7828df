package data

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"narwharf/cache/blob/s3/location"
	"narwharf/cache/copies"
	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/server"
	"narwharf/cmd/narwharf/server/storage"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/serverconfig"
	"narwharf/narinfo"
)

// Export is the command export.
func Export() *cobra.Command {
	c := command.New("export DIR|s3://BUCKET [CHANNEL|PATH…]", "write a plain static Nix cache to a folder or bucket", 1, -1,
		`Copies the current releases of channels, and store paths, with all that they refer
to, or everything that was uploaded, to a folder in the plain layout of a Nix
cache: any web server can serve it, and Nix reads it as file://DIR. Or to a bucket,
s3://BUCKET/PREFIX?endpoint=https://HOST&region=NAME, with the key of the file
--credentials-file, else of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Its narinfos are
those that clients get, with the server's signatures. Paths that are in the
machine's own store alone become uploads before. Uploaded build logs, debug infos and
realisations go with the paths that they are about.

It may be killed: every path in the folder is there with all that it refers to, and
another export goes on from there. It works beside a running server.

Exit status: 0 done, 1 some paths could not be copied, 2 it could not be done.

    narwharf export /mnt/disk/cache web db
    nix copy --from file:///mnt/disk/cache /nix/store/…`)
	asJSON := c.Flags().Bool("json", false, "print JSON")
	jobs := c.Flags().Int("jobs", 8, "how many paths are copied at once")
	credentials := c.Flags().String("credentials-file", "", "`FILE` with the key of the bucket that is written")
	return withConfig(c, func(cfg *serverconfig.Config, run Job, args []string) (err error) {
		log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
		to, err := exportTo(args[0], cfg.Cache.StoreDir, *credentials, log)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, to.Close()) }()
		infos, err := exported(run, args[1:])
		if err != nil {
			return err
		}
		from, done, err := exportFrom(cfg, log)
		if err != nil {
			return err
		}
		defer done()
		r, err := copied(c, &copies.Copy{From: from, To: to, Jobs: *jobs, Verb: "exported"}, infos, *asJSON)
		return ended(c, r, err, *asJSON, "exported", " to "+args[0])
	})
}

// exportTo opens the folder or the bucket that is written.
func exportTo(where, storeDir, credentials string, log *slog.Logger) (*copies.Files, error) {
	if !strings.HasPrefix(where, location.Scheme) {
		return copies.WriteFolder(where, storeDir)
	}
	at, err := location.Parse(where)
	if err != nil {
		return nil, err
	}
	files, done, err := storage.Bucket(at, credentials, log)
	if err != nil {
		return nil, err
	}
	return copies.NewFiles(files, storeDir, done)
}

// exportFrom opens the content files of the server.
func exportFrom(cfg *serverconfig.Config, log *slog.Logger) (from copies.Source, done func(), err error) {
	if at := cfg.Storage.Bucket(); at != nil {
		files, done, err := storage.Bucket(at, cfg.Storage.CredentialsFile, log)
		if err != nil {
			return nil, nil, err
		}
		return copies.NewContent(files), done, nil
	}
	dir := cmp.Or(cfg.Storage.Content, filepath.Join(cfg.DataDir, "cache"))
	from, err = copies.OpenFolder(dir, cfg.Cache.StoreDir)
	return from, func() {}, err
}

// exported asks for the narinfos of what is exported.
func exported(run Job, what []string) (infos []*narinfo.Info, err error) {
	r, w := io.Pipe()
	var g errgroup.Group
	g.Go(func() (err error) {
		infos, err = readInfos(r)
		_ = r.CloseWithError(err) // else the job would wait for us
		return err
	})
	err = run("export", server.ExportArgs{What: what}, w)
	_ = w.CloseWithError(err)
	if readErr := g.Wait(); err == nil {
		err = readErr
	}
	return infos, err
}

func readInfos(r io.Reader) (infos []*narinfo.Info, err error) {
	lines := json.NewDecoder(bufio.NewReader(r))
	for {
		var e server.Exported
		err := lines.Decode(&e)
		if err == io.EOF {
			return infos, nil
		}
		if err != nil {
			return nil, err
		}
		info, err := narinfo.Parse([]byte(e.Narinfo))
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
}

// copied copies paths, shows how far it is, and names those that are not copied.
func copied(c *cobra.Command, copy *copies.Copy, infos []*narinfo.Info, quiet bool) (copies.Result, error) {
	bar := terminal.NewProgress(c.ErrOrStderr())
	defer bar.End()
	if !quiet {
		copy.Report = reporter(bar.Writer(c.OutOrStdout()))
	}
	return copy.Run(bar.With(c.Context()), infos)
}

func reporter(out io.Writer) func(copies.Failure) {
	return func(f copies.Failure) { fmt.Fprintf(out, "left out: %s: %s\n", f.Path, f.Error) }
}

// ended says what a copy did.
func ended(c *cobra.Command, r copies.Result, err error, asJSON bool, verb, where string) error {
	switch {
	case err != nil && context.Cause(c.Context()) != nil:
		return fmt.Errorf("stopped after %d paths; run it again, and it goes on: %w", r.Copied, err)
	case err != nil:
		return fmt.Errorf("after %d paths: %w", r.Copied, err)
	case asJSON:
		err = terminal.JSON(c.OutOrStdout(), r)
	default:
		_, err = fmt.Fprintf(c.OutOrStdout(), "%s %d paths (%.1f MiB of NARs)%s; %d were there already\n", verb, r.Copied, float64(r.Bytes)/(1<<20), where, r.There)
	}
	if err != nil || len(r.Failed) == 0 {
		return err
	}
	if !asJSON {
		if _, err := fmt.Fprintf(c.OutOrStdout(), "%d paths were left out\n", len(r.Failed)); err != nil {
			return err
		}
	}
	return command.Exit(1)
}
