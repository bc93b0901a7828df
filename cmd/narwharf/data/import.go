package data

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"narwharf/cache/copies"
	"narwharf/cache/copies/remote"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/signing"
)

// Import is the command import.
func Import() *cobra.Command {
	c := command.New("import URL|DIR [PATH…]", "upload what another cache has: the move to Narwharf", 1, -1,
		`Uploads store paths, with all that they refer to, from another cache or from a
folder that nix copy --to file://… or narwharf export wrote. From a folder it is
everything unless something is named; from a URL name paths, a channel (of a
Narwharf) or a file with a store path in each line, as store-paths.xz of a NixOS
channel is one. From a folder build logs, debug infos and realisations go with the
paths that they are about; over HTTP nobody can list them.

It is an upload like any other: the server checks every byte, references come
first, and the token needs the scope push. NARs that are not packed are packed with
zstd on the way. What the server has already is not read. It may be killed; another
import goes on from there.

Exit status: 0 done, 1 some paths could not be copied, 2 it could not be done.

    narwharf import /mnt/disk/cache
    narwharf import https://old.example.org --paths-from paths.txt
    narwharf import https://other.narwharf.example --channel web
    narwharf import https://mine.cachix.org --also https://cache.nixos.org /nix/store/…`)
	f := &importFlags{client: command.AddClientFlags(c)}
	c.Flags().StringSliceVar(&f.channels, "channel", nil, "take the current release of this `CHANNEL`; may be repeated")
	c.Flags().StringVar(&f.pathsFrom, "paths-from", "", "`FILE` with a store path in each line, perhaps packed with xz; - for stdin")
	c.Flags().StringSliceVar(&f.also, "also", nil, "`URL|DIR` of a cache that has what the first lacks; may be repeated")
	c.Flags().StringSliceVar(&f.keys, "trusted-key", nil, "take only what this public `KEY` has signed; may be repeated")
	c.Flags().StringVar(&f.netrc, "netrc-file", "", "`FILE` with the passwords of the caches that are read, as Nix has it")
	c.Flags().IntVar(&f.jobs, "jobs", 8, "how many paths are under way at once")
	c.RunE = f.run
	return c
}

type importFlags struct {
	client               *command.ClientFlags
	channels, also, keys []string
	pathsFrom, netrc     string
	jobs                 int
}

func (f *importFlags) run(c *cobra.Command, args []string) error {
	cfg, err := f.client.Load()
	if err != nil {
		return err
	}
	client, err := command.NewClient(cfg, c.Root().Version)
	if err != nil {
		return err
	}
	base, err := api.ParseURL(client.Server())
	if err != nil {
		return err
	}
	agent := "narwharf/" + c.Root().Version
	o := remote.Options{Base: base, Transport: client.Transport(), Password: client.Token(), Agent: agent}
	server, err := remote.Open(c.Context(), o, "")
	if err != nil {
		if failed := (*url.Error)(nil); errors.As(err, &failed) {
			return api.Unreached(base, err)
		}
		if api.WantsTLS(err.Error()) {
			err = fmt.Errorf("%w: it speaks TLS, so the URL should begin with https://", err)
		}
		return fmt.Errorf("the server: %w", err)
	}
	to := remote.NewServer(o)
	var from copies.Chain
	var first source
	for i, name := range append([]string{args[0]}, f.also...) {
		s, err := f.open(c.Context(), name, server.StoreDir, agent)
		if err != nil {
			return err
		}
		if from = append(from, s); i == 0 {
			first = s
		}
	}
	roots, err := f.roots(c, first, args[0], args[1:])
	if err != nil {
		return err
	}
	r, err := f.copy(c, from, to, roots)
	return ended(c, r, err, f.client.JSON, "imported", "")
}

// copy reads what is to be copied, and copies it.
func (f *importFlags) copy(c *cobra.Command, from copies.Source, to *remote.Server, roots []string) (r copies.Result, err error) {
	if from, err = f.trusted(from); err != nil {
		return r, err
	}
	bar := terminal.NewProgress(c.ErrOrStderr())
	infos, there, failed, err := copies.Closure(bar.With(c.Context()), from, roots, to.HasPath, f.jobs)
	bar.End()
	if err != nil {
		return r, err
	}
	if !f.client.JSON {
		for _, one := range failed {
			reporter(c.OutOrStdout())(one)
		}
	}
	temp, err := os.MkdirTemp("", "narwharf-import-")
	if err != nil {
		return r, err
	}
	defer func() { _ = os.RemoveAll(temp) }() // of no use to anybody
	r, err = copied(c, &copies.Copy{From: from, To: to, Temp: temp, Pack: true, Jobs: f.jobs, Verb: "imported"}, infos, f.client.JSON)
	r.There += there
	r.Failed = append(failed, r.Failed...)
	return r, err
}

// trusted takes of a source what is signed, if keys are given.
func (f *importFlags) trusted(from copies.Source) (copies.Source, error) {
	var keys []signing.PublicKey
	for _, text := range f.keys {
		k, err := signing.ParsePublicKey(text)
		if err != nil {
			return nil, fmt.Errorf("--trusted-key: %w", err)
		}
		keys = append(keys, k)
	}
	if keys == nil {
		return from, nil
	}
	return copies.Trusted{Source: from, Keys: keys}, nil
}

// source is a cache that is imported from.
type source interface{ copies.Source }

// open opens a cache by its URL, or a folder.
func (f *importFlags) open(ctx context.Context, name, storeDir, agent string) (source, error) {
	if dir, ok := strings.CutPrefix(name, "file://"); ok || !strings.Contains(name, "://") {
		return copies.OpenFolder(dir, storeDir)
	}
	base, err := api.ParseURL(name)
	if err != nil {
		return nil, err
	}
	o := remote.Options{Base: base, Transport: remote.Transport(), Agent: agent}
	if o.User, o.Password, err = f.password(base); err != nil {
		return nil, err
	}
	return remote.Open(ctx, o, storeDir)
}

// password is what the netrc has for a cache.
func (f *importFlags) password(base *url.URL) (user, password string, err error) {
	if f.netrc == "" {
		return "", "", nil
	}
	user, password, err = remote.Netrc(f.netrc, base.Hostname())
	if err != nil {
		err = fmt.Errorf("--netrc-file: %w", err)
	}
	return user, password, err
}

// roots are the hash parts of what is to be imported.
func (f *importFlags) roots(c *cobra.Command, first source, name string, paths []string) (roots []string, err error) {
	if f.pathsFrom != "" {
		more, err := readPaths(f.pathsFrom, c.InOrStdin())
		if err != nil {
			return nil, fmt.Errorf("--paths-from: %w", err)
		}
		paths = append(paths, more...)
	}
	for _, name := range f.channels {
		more, err := f.channel(c, c.Flags().Arg(0), name)
		if err != nil {
			return nil, err
		}
		paths = append(paths, more...)
	}
	for _, p := range paths {
		if hash := strings.TrimSuffix(p, ".narinfo"); narinfo.ValidHash(hash) { // as a bucket lists them
			roots = append(roots, hash)
			continue
		}
		base, err := narinfo.ParseBase(path.Base(p))
		if err != nil {
			return nil, err
		}
		roots = append(roots, base.Hash())
	}
	if len(roots) > 0 {
		return roots, nil
	}
	folder, ok := first.(*copies.Folder)
	if !ok {
		return nil, fmt.Errorf("nobody can say what %s has: name store paths, --channel or --paths-from", name)
	}
	return folder.Hashes()
}

// channel asks another Narwharf for what a channel names.
func (f *importFlags) channel(c *cobra.Command, name, channel string) (paths []string, err error) {
	base, err := api.ParseURL(name)
	if err != nil {
		return nil, fmt.Errorf("--channel asks a Narwharf: %w", err)
	}
	_, password, err := f.password(base)
	if err != nil {
		return nil, err
	}
	client, err := api.NewClient(api.ClientOptions{Servers: []string{name}, Token: password, UserAgent: "narwharf/" + c.Root().Version})
	if err != nil {
		return nil, err
	}
	is, err := client.Channel(c.Context(), channel)
	var denied *api.Error
	if errors.As(err, &denied) && (denied.Kind == api.Unauthorized || denied.Kind == api.Forbidden) {
		return nil, fmt.Errorf("%s: %w (--netrc-file has the tokens of caches that are read)", name, err)
	}
	if err != nil {
		return nil, err
	}
	if is.Release == nil {
		return nil, fmt.Errorf("%s has no channel %s, or nothing was promoted to it", name, channel)
	}
	_, entries, err := is.Release.Check()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		paths = append(paths, e.StorePath)
	}
	return paths, nil
}

// maxPaths bounds a file of store paths in bytes, unpacked.
const maxPaths = 1 << 30

// readPaths reads the first word of each line.
func readPaths(name string, stdin io.Reader) (paths []string, err error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	encoding := map[string]string{".xz": "xz", ".gz": "gzip", ".zst": "zstd", ".br": "br"}[path.Ext(name)]
	text, err := narfile.Decode(in, encoding, maxPaths, name, refusal.Content)
	if err != nil {
		return nil, err
	}
	defer text.Close()
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		if words := strings.Fields(lines.Text()); len(words) > 0 && !strings.HasPrefix(words[0], "#") {
			paths = append(paths, words[0])
		}
	}
	return paths, lines.Err()
}
