package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/keys"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/configfile"
	"narwharf/hooks/promoter"
	"narwharf/hooks/promoter/rotation"
	"narwharf/signing"
)

func promoteCommand() *cobra.Command {
	c := command.New("promote CHANNEL PATH | CHANNEL TARGET=PATH…", "point a channel at new systems: the roll-out", 1, -1,
		`Makes, signs and sends the next release of a channel. The closures must be in
the server's cache already (nix copy), byte for byte what this machine has.

    narwharf promote web ./result                 one system for all hosts
    narwharf promote prod web-1=./a web-2=./b     one for each host
    narwharf promote prod --targets hosts.json    {"web-1": "/nix/store/…", …}
    narwharf promote prod ./release               a folder of links to systems
    narwharf promote prod --set web-1=./a         as the last release, but this

With --out FILE the release is written and not sent; others add signatures with
narwharf sign, and narwharf promote CHANNEL --envelope FILE sends it.`)
	f := addPromoteFlags(c)
	fl := c.Flags()
	fl.StringVar(&f.targets, "targets", "", "`FILE` of JSON, from target to store path; - for stdin")
	fl.StringSliceVar(&f.set, "set", nil, "`TARGET=PATH` to change in the last release; may be repeated")
	fl.StringVar((*string)(&f.options.Action), "action", "auto", "what hosts do: auto (switch; where a reboot is needed, that by the policy's reboot_slots, else by a person), switch, boot, test, dry-activate, reboot")
	fl.BoolVar(&f.options.Last, "last", false, "hosts take the system also where it is without the agent, and then follow no more")
	fl.BoolVar(&f.options.FromCache, "from-cache", false, "compute the closures from the cache's narinfos, which --content-key must have signed")
	fl.BoolVar(&f.options.Adopt, "adopt", false, "where the cache has other bytes, take them if --content-key signed them")
	fl.StringSliceVar(&f.contentKeys, "content-key", nil, "public `KEY` or file that vouches for bytes; may be repeated (else client.toml)")
	fl.StringVar(&f.out, "out", "", "write the release to `FILE` instead of sending it")
	fl.StringVar(&f.envelope, "envelope", "", "send the release in `FILE`")
	fl.StringVar(&f.options.StoreRoot, "store-root", "", "prefix of the local store, as in Nix's local?root=")
	fl.StringVar(&f.options.StoreDir, "store-dir", "/nix/store", "directory of store paths")
	fl.StringVar(&f.options.System, "system", "", "`SYSTEM` of paths that do not say it themselves (default: this machine's)")
	c.RunE = func(c *cobra.Command, args []string) error {
		p, err := f.promoter(c, args[0])
		if err != nil {
			return err
		}
		defer f.bar.End()
		if f.envelope != "" {
			if len(args) > 1 || len(f.set) > 0 || f.targets != "" || f.options.Seq != nil {
				return errors.New("--envelope sends what is in the file: it goes with no paths and no --seq")
			}
			file, err := promoter.ReadFile(f.envelope)
			if err != nil {
				return err
			}
			answer, err := p.SendFile(c.Context(), file)
			return f.finish(c, p, answer, err)
		}
		r, err := f.build(c, p, args[1:])
		return f.send(c, p, r, err)
	}
	return c
}

// promoteFlags are those of promote; rollback shares the most of them.
type promoteFlags struct {
	client  *command.ClientFlags
	options promoter.Options
	bar     *terminal.Progress

	targets                           string
	set                               []string
	keys                              *keys.Flags
	trusted, channelKeys, contentKeys []string
	ifSeq                             *int64
	seq, order                        int64
	meta                              []string
	expires                           string
	out, envelope                     string
	wait                              bool
	timeout, offline                  time.Duration
}

func addPromoteFlags(c *cobra.Command) *promoteFlags {
	f := &promoteFlags{client: command.AddClientFlags(c), keys: keys.AddFlags(c)}
	fl := c.Flags()
	fl.StringSliceVar(&f.trusted, "trusted-key", nil, "public `KEY` or file of promoters whose releases are built upon (default: those of --key)")
	fl.StringSliceVar(&f.channelKeys, "channel-key", nil, "public `KEY` or file that the channel's releases may be signed by, beside --key; said with the first promote")
	fl.IntVar(&f.options.Threshold, "threshold", 0, "how many of the channel's keys must sign; said with the first promote (default 1)")
	fl.StringVar((*string)(&f.options.Kind), "kind", "", "nixos, or path for anything else; said with the first promote (default nixos)")
	fl.StringVar(&f.options.Origin, "origin", "", "what hosts know the channel as: `NAME/CHANNEL`, said by its first release (default: the server's host name, /, the channel); another later takes the scope admin")
	f.ifSeq = command.IfSeq(c, "promote only if the channel is at this `SEQ`; 0: if it is not there yet")
	fl.Int64Var(&f.seq, "seq", 0, "`SEQ` of the new release, if not the next one: above what hosts saw before an older backup was restored")
	fl.StringArrayVar(&f.meta, "meta", nil, "`K=V` for people: rev=…, url=…; may be repeated")
	fl.Int64Var(&f.order, "order", 0, "`N` of the source, a commit count or run number: a lower one is refused")
	fl.StringVar(&f.expires, "expires", "", "hosts do not start on it after this `TIME` from now, as 12h or 30d")
	fl.BoolVar(&f.wait, "wait", false, "wait until the hosts run it, and say who does not; exit 0 completed, 3 reverted or failed, 4 superseded, 5 time-out")
	fl.IntVar(&f.options.RequireHosts, "require-hosts", 0, "with --wait: not done before `N` hosts run it")
	f.timeout, f.offline = 30*time.Minute, time.Minute
	fl.Var((*configfile.Duration)(&f.timeout), "wait-timeout", "how long --wait waits")
	fl.Var((*configfile.Duration)(&f.offline), "offline-after", "how long --wait waits for hosts that are not there")
	fl.BoolVar(&f.options.DryRun, "dry-run", false, "check everything and say what would change")
	return f
}

// promoter is made of the flags, of client.toml and of the environment.
func (f *promoteFlags) promoter(c *cobra.Command, channel string) (*promoter.Promoter, error) {
	if err := signing.CheckChannel(channel); err != nil {
		return nil, err
	}
	cfg, err := f.client.Load()
	if err != nil {
		return nil, err
	}
	o := &f.options
	o.Channel = channel
	if o.Keys, err = f.keys.Signers(cfg, c.ErrOrStderr()); err != nil {
		return nil, err
	}
	if len(o.Keys) == 0 && f.out == "" && f.envelope == "" {
		return nil, errors.New("no key to sign with: give --key FILE (make one with narwharf key generate NAME)")
	}
	for _, k := range []struct {
		flag   string
		values []string
		keys   *[]signing.PublicKey
		parse  func(string) (signing.PublicKey, error)
	}{
		{"--trusted-key", keys.FirstOf(f.trusted, cfg.TrustedKeys), &o.Trusted, signing.ParsePromoterKey},
		{"--content-key", keys.FirstOf(f.contentKeys, cfg.ContentKeys), &o.ContentKeys, signing.ParsePublicKey},
		{"--channel-key", f.channelKeys, &o.ChannelKeys, signing.ParsePromoterKey},
	} {
		if *k.keys, err = keys.ParsePublic(k.flag, k.values, k.parse); err != nil {
			return nil, err
		}
	}
	if o.Meta, err = pairs("--meta", "K=V", f.meta); err != nil {
		return nil, err
	}
	if f.expires != "" {
		if o.Expires, err = command.ParseAge(f.expires); err != nil {
			return nil, fmt.Errorf("--expires: %w", err)
		}
	}
	if o.Origin == "" && cfg.Origin != "" {
		o.Origin, o.KeepOrigin = strings.TrimRight(cfg.Origin, "/")+"/"+channel, true
	}
	if *f.ifSeq >= 0 {
		o.IfSeq = f.ifSeq
	}
	if c.Flags().Changed("seq") {
		o.Seq = &f.seq
	}
	if c.Flags().Changed("order") {
		o.Order = &f.order
	}
	if o.Client, err = command.NewClient(cfg, versionText()); err != nil {
		return nil, err
	}
	out := c.OutOrStdout()
	if f.client.JSON {
		out = io.Discard
	}
	f.bar = terminal.NewProgress(c.ErrOrStderr())
	c.SetContext(f.bar.With(c.Context()))
	return promoter.New(*o, f.bar.Writer(out), f.bar.Writer(c.ErrOrStderr()))
}

// build makes the release of what was typed.
func (f *promoteFlags) build(c *cobra.Command, p *promoter.Promoter, args []string) (*promoter.Release, error) {
	ctx := c.Context()
	switch {
	case len(f.set) > 0 && (len(args) > 0 || f.targets != ""):
		return nil, errors.New("--set changes targets of the last release: it goes with no other paths")
	case f.targets != "" && len(args) > 0:
		return nil, errors.New("--targets names all paths: it goes with no others")
	case len(f.set) > 0:
		paths, err := pairs("--set", "TARGET=PATH", f.set)
		if err != nil {
			return nil, err
		}
		return p.Change(ctx, paths)
	case f.targets != "":
		paths, err := readTargets(f.targets, c.InOrStdin())
		if err != nil {
			return nil, fmt.Errorf("--targets: %w", err)
		}
		return p.Build(ctx, paths)
	case len(args) == 0:
		return nil, errors.New("say what to promote: a path, TARGET=PATH, --targets or --set")
	case len(args) == 1 && !strings.Contains(args[0], "="):
		return p.BuildPath(ctx, args[0])
	}
	paths, err := pairs("", "TARGET=PATH", args)
	if err != nil {
		return nil, err
	}
	return p.Build(ctx, paths)
}

func readTargets(file string, stdin io.Reader) (paths map[string]string, err error) {
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		stdin = f
	}
	if err := json.NewDecoder(stdin).Decode(&paths); err != nil {
		return nil, fmt.Errorf("not JSON of the form {\"host\": \"/nix/store/…\"}: %w", err)
	}
	return paths, nil
}

// send sends a release, or writes it to a file.
func (f *promoteFlags) send(c *cobra.Command, p *promoter.Promoter, r *promoter.Release, err error) error {
	switch {
	case err != nil:
		return f.finish(c, p, nil, err)
	case f.out != "":
		return p.Save(r, f.out)
	}
	answer, err := p.Send(c.Context(), r)
	return f.finish(c, p, answer, err)
}

// finish prints what became of a promote, and waits if asked to.
func (f *promoteFlags) finish(c *cobra.Command, p *promoter.Promoter, a *api.Promoted, err error) error {
	var e *api.Error
	switch {
	case errors.As(err, &e) && e.Kind == api.RaceLost:
		return command.Failed{Code: 4, Err: err}
	case err != nil:
		return err
	case a.DryRun || !f.wait:
		if f.client.JSON && !f.wait {
			return terminal.JSON(c.OutOrStdout(), a)
		}
		return nil
	}
	r, err := p.Wait(c.Context(), a.Seq, f.timeout, f.offline)
	if err == nil && f.client.JSON {
		err = terminal.JSON(c.OutOrStdout(), r)
	}
	switch {
	case err != nil:
		return err
	case r.Outcome == promoter.Completed:
		return nil
	case r.Outcome == promoter.Reverted:
		return command.Exit(3)
	case r.Outcome == promoter.Superseded:
		return command.Exit(4)
	}
	return command.Failed{Code: 5, Err: fmt.Errorf("not done after %s: %s", f.timeout, r.Summary)}
}

func rollbackCommand() *cobra.Command {
	c := command.New("rollback CHANNEL", "promote an earlier release again, as a new one", 1, 1,
		`Makes a new release with the systems of an earlier one: the last that at least
one host ended ok and none badly, as they reported, or the one that --to names.
It says which that is and why. What a rollback went back from is passed over. If
no host reported anything it is the release before the last. Hosts never go back
in seq; they go forward to old systems.

    narwharf rollback web --dry-run     what it would do, and what hosts said
    narwharf rollback web
    narwharf rollback web --to 41`)
	f := addPromoteFlags(c)
	to := c.Flags().String("to", "last-good", "`SEQ` to go back to, or last-good")
	c.RunE = func(c *cobra.Command, args []string) error {
		p, err := f.promoter(c, args[0])
		if err != nil {
			return err
		}
		defer f.bar.End()
		seq, err := int64(0), error(nil)
		if *to != "last-good" {
			if seq, err = strconv.ParseInt(*to, 10, 64); err != nil || seq < 1 {
				return fmt.Errorf("--to: %q is neither a seq nor last-good", *to)
			}
		}
		r, err := p.Rollback(c.Context(), seq)
		return f.send(c, p, r, err)
	}
	return c
}

func refreshCommand() *cobra.Command {
	c := command.New("refresh CHANNEL", "promote what a channel has once more, signed anew", 1, 1,
		`Makes a new release with the entries of the last one, byte for byte: hosts that run
them have nothing to do. It is made and signed now, by the keys given, so that hosts with
require_fresh see that nobody withholds a newer one, and so that keys that stay have
signed before another is retired. --expires gives it a new end.

    narwharf channel refresh web --expires 14d      from a timer of CI, say`)
	f := addPromoteFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		p, err := f.promoter(c, args[0])
		if err != nil {
			return err
		}
		defer f.bar.End()
		r, err := p.Refresh(c.Context())
		return f.send(c, p, r, err)
	}
	return c
}

func signCommand() *cobra.Command {
	c := command.New("sign [--key FILE] RELEASE", "add a signature to what promote --out or channel keys --out wrote", 1, 1,
		`Shows what the release does, and adds a signature by each key to the file. With
no key it only shows it: look first, and sign when it is what you expect.

    narwharf promote prod ./release --out r.json
    narwharf sign r.json
    narwharf sign --key mine.sec r.json
    narwharf promote prod --envelope r.json

The store paths are what is signed, with every byte of their closures.`)
	with := keys.AddFlags(c)
	all := c.Flags().Bool("all", false, fmt.Sprintf("show all targets, not the first %d", shownTargets))
	asJSON := c.Flags().Bool("json", false, "print all of it as JSON")
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := configfile.LoadClient("")
		if err != nil {
			return err
		}
		cfg.Keys = nil // only what is typed signs
		signers, err := with.Signers(cfg, c.ErrOrStderr())
		if err != nil {
			return err
		}
		out := c.OutOrStdout()
		if _, err := rotation.ReadFile(args[0]); !errors.Is(err, rotation.ErrOther) {
			return keys.SignFile(out, args[0], signers)
		}
		f, err := promoter.ReadFile(args[0])
		if err != nil {
			return err
		}
		if *asJSON {
			n, err := f.Sign(signers)
			return errors.Join(err, terminal.JSON(out, map[string]any{"head": f.Head, "entries": f.Entries, "signatures": n}))
		}
		f.Show(out)
		fmt.Fprintln(out)
		shown := f.Entries
		if !*all && len(shown) > shownTargets {
			shown = shown[:shownTargets]
		}
		if err := entryTable(out, shown); err != nil {
			return err
		}
		if more := len(f.Entries) - len(shown); more > 0 {
			fmt.Fprintf(out, "… %d more (--all shows them)\n", more)
		}
		if len(signers) == 0 {
			return nil
		}
		n, err := f.Sign(signers)
		if err == nil {
			fmt.Fprintf(out, "\nsigned %s seq %d; %d signatures now\n", f.Head.Channel, f.Head.Seq, n)
		}
		return err
	}
	return c
}

// shownTargets is how many targets of a release are shown unless all are.
const shownTargets = 20
