package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/doctor/client"
	"narwharf/hooks/doctor/remote"
	"narwharf/hooks/nixconf"
	"narwharf/signing"
)

func useCommand() *cobra.Command {
	c := command.New("use [SERVER]", "let Nix on this machine substitute from a cache", 0, 1,
		`Asks the cache for its keys, and for a path that has to be signed by one of them,
before anything is written. Then the lines go to nix.conf: root's to /etc/nix
(with Determinate's Nix to nix.custom.conf there), a user's to his own, where Nix
would read them. On NixOS, where the configuration makes nix.conf, they are
printed and nothing is written. A second time nothing changes.

    narwharf use https://cache.example.org
    narwharf use https://cache.example.org --key cache.example.org-1:AbCd…=
    narwharf use https://cache.example.org --netrc       reading takes a token
    narwharf use http://cache.lan:8080 --lan             over more than 1 Gbit/s

The keys are those that the server names, and who answers in its place may name
others: over http, or where it matters, say with --key which one you know. With
--netrc the token that narwharf login got, or --token-file, becomes Nix's password
for the cache. With --lan Nix takes what the server has in its own store and never
packed as it is, which is faster where the wire is. narwharf doctor client says afterwards whether it works.`)
	f := command.AddClientFlags(c)
	withNetrc := c.Flags().Bool("netrc", false, "give Nix a password for the cache, too")
	lan := c.Flags().Bool("lan", false, "take paths of the server's own store unpacked: for a wire of more than 1 Gbit/s")
	dry := c.Flags().Bool("dry-run", false, "only print what would be written, and where")
	path := c.Flags().String("path", "", "a store `PATH` that the cache has, to be tried (default: one that every Narwharf has)")
	known := c.Flags().StringSlice("key", nil, "a public `KEY` that the cache has to sign with, in place of all that it names; may be repeated")
	c.RunE = func(c *cobra.Command, args []string) error {
		look, cfg, err := before(c, f, args)
		if err != nil {
			return err
		}
		if *lan {
			look.Cache.URL = look.Cache.URL.JoinPath(nixconf.LAN)
		}
		if *withNetrc {
			if look.Cache.Password, err = token(c, cfg, look.Cache.URL.Hostname()); err != nil {
				return err
			}
		}
		keys, err := proven(c.Context(), look.Cache, *path, *known)
		if err != nil {
			return err
		}
		p, err := client.NewPlan(look.Machine, look.Cache.URL.String(), keys, *withNetrc, cfg.Netrc())
		if err != nil {
			return err
		}
		changed := false
		if !*dry {
			if changed, err = p.Write(look.Cache.URL.Hostname(), look.Cache.Password); err != nil {
				return err
			}
		}
		if f.JSON {
			return terminal.JSON(c.OutOrStdout(), p)
		}
		return say(c, p, changed, *dry)
	}
	return c
}

// proven are the keys by which a path of the cache verifies: those that are known, else those that the cache names.
func proven(ctx context.Context, cache *remote.Cache, path string, known []string) ([]signing.PublicKey, error) {
	if err := cache.Ask(ctx); err != nil {
		return nil, hint(err)
	}
	keys, err := cache.Keys(ctx)
	if err != nil && len(known) == 0 {
		return nil, fmt.Errorf("%w: name a key that you know by --key", err)
	}
	if len(known) > 0 {
		named := keys
		keys = nil
		for _, text := range known {
			k, err := signing.ParsePublicKey(text)
			if err != nil {
				return nil, fmt.Errorf("--key: %w", err)
			}
			if len(named) > 0 && !slices.ContainsFunc(named, func(n signing.PublicKey) bool { return n.String() == k.String() }) {
				return nil, fmt.Errorf("--key: the cache signs with other keys than %s: ask who runs it, and nothing was written", k)
			}
			keys = append(keys, k)
		}
	}
	info, err := cache.Narinfo(ctx, path)
	if err != nil {
		return nil, hint(fmt.Errorf("no path could be tried, so nothing was written: %w", err))
	}
	if err := cache.Verify(ctx, info); err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, errors.New("the cache has no key: Nix takes nothing from it that was not signed before it was uploaded, so name that key by --key")
	}
	if _, ok := signing.VerifyAny(info.AppendFingerprint(nil), info.Sigs, keys); !ok {
		return nil, fmt.Errorf("%s is not signed by %s: Nix would refuse it, so nothing was written", info.Path, keys[0].Name())
	}
	return keys, nil
}

// hint says what to do about an error of a cache.
func hint(err error) error {
	switch {
	case errors.Is(err, remote.ErrNoRight):
		return fmt.Errorf("%w\nnarwharf login gets a token, and --netrc gives it to Nix", err)
	case strings.Contains(err.Error(), "status 404"):
		return fmt.Errorf("%w\nA server before v0.2 lacks the path that is tried: name one that it has by --path", err)
	}
	return err
}

// say prints what was done, and what is left.
func say(c *cobra.Command, p *client.Plan, changed, dry bool) error {
	out := c.OutOrStdout()
	switch {
	case p.Why != "":
		fmt.Fprintf(c.ErrOrStderr(), "Nothing was written: %s.\n", p.Why)
	case dry:
		fmt.Fprintf(c.ErrOrStderr(), "Would be written to %s:\n", p.File)
	case !changed:
		fmt.Fprintf(c.ErrOrStderr(), "Nothing has changed: %s has these lines.\n", p.File)
	default:
		fmt.Fprintf(c.ErrOrStderr(), "Written to %s:\n", p.File)
	}
	lines := p.Lines
	if p.NixOS != nil {
		lines = p.NixOS
	}
	if _, err := fmt.Fprintln(out, strings.Join(lines, "\n")); err != nil {
		return err
	}
	if p.Netrc != "" {
		fmt.Fprintf(c.ErrOrStderr(), "The password is in %s.\n", p.Netrc)
	}
	if changed || p.Why != "" {
		for _, line := range p.Then {
			fmt.Fprintf(c.ErrOrStderr(), "Then type:  %s\n", line)
		}
	}
	return nil
}
