// Package deploy has the command that builds, uploads, promotes and waits. Each step is a command line
// that anybody could type, and -v shows it as it is run: what the command does is what it shows.
package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/hooks/api"
	"narwharf/hooks/configfile"
	"narwharf/hooks/login/netrc"
	"narwharf/signing"
)

// Command is the command deploy.
func Command() *cobra.Command {
	c := command.New("deploy CHANNEL [TARGET=]INSTALLABLE… [-- FLAGS]", "build, upload and promote a system, and wait for its hosts", 2, -1,
		`Builds with nix build, uploads with nix copy, promotes with narwharf promote --wait.
An installable is what nix build takes: .#nixosConfigurations.web.config.system.build.toplevel,
a release of lib.release, a store path. With TARGET= before it, it is the system of
that host; as many as there are hosts.

    narwharf deploy web .#web
    narwharf deploy prod web-1=.#web-1 web-2=.#web-2 -v
    narwharf deploy web .#release --content-key-file ci.sec -- --require-hosts 3 --meta rev=$(git rev-parse HEAD)

What stands behind -- goes to narwharf promote as it is. -v shows each command line
before it is run. --dry-run builds, shows the lines that would follow, and asks the
server what the promote would come to; of a system that is not uploaded it says what
is missing. The token, for uploading as well, is --token-file, that of client.toml,
or what narwharf login got. Exit status: 0 the hosts run it, 3 some went back or
failed, 4 superseded, 5 time-out, 2 anything else.`)
	d := &deploy{client: command.AddClientFlags(c)}
	fl := c.Flags()
	fl.StringSliceVar(&d.keys, "key", nil, "the promoter's secret key `FILE`; may be repeated (else client.toml)")
	fl.StringVar(&d.contentKey, "content-key-file", "", "secret key `FILE` that signs what is uploaded")
	fl.StringVar(&d.to, "to", "", "store `URL` to upload to, if not the server's with zstd")
	fl.StringVar(&d.nix, "nix", "nix", "the `PROGRAM` nix")
	fl.BoolVarP(&d.verbose, "verbose", "v", false, "show each step's command line")
	fl.BoolVar(&d.dry, "dry-run", false, "build, and say what would follow")
	fl.BoolVar(&d.noWait, "no-wait", false, "end when it is promoted")
	command.Must(fl.MarkHidden("json"))
	c.RunE = d.run
	return c
}

type deploy struct {
	client                     *command.ClientFlags
	keys                       []string
	contentKey, to, nix        string
	verbose, dry, noWait       bool
	config                     *configfile.Client
	work                       string // a folder of this call alone
	out, errs                  io.Writer
	channel                    string
	targets, installables, sys []string // by position; a target may be ""
	more                       []string // flags for promote
}

func (d *deploy) run(c *cobra.Command, args []string) (err error) {
	d.out, d.errs, d.channel = c.OutOrStdout(), c.ErrOrStderr(), args[0]
	if at := c.ArgsLenAtDash(); at >= 0 {
		args, d.more = args[:at], args[at:]
	}
	if err := d.parse(args); err != nil {
		return err
	}
	if d.config, err = d.client.Load(); err != nil {
		return err
	}
	if d.work, err = os.MkdirTemp("", "narwharf-deploy-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(d.work) }()
	copying, err := d.upload()
	if err != nil {
		return err
	}
	if err := d.build(c.Context()); err != nil {
		return err
	}
	copying.args = append(copying.args, d.sys...)
	promote, err := d.promote(c)
	if err != nil {
		return err
	}
	if d.dry {
		for _, s := range []step{copying, promote} {
			fmt.Fprintln(d.out, s)
		}
		promote.args = append(promote.args, "--dry-run")
		return d.exec(c.Context(), promote, d.out)
	}
	fmt.Fprintf(d.errs, "uploading to %s\n", d.config.Server)
	if err := d.exec(c.Context(), copying, d.out); err != nil {
		return fmt.Errorf("nix copy: %w", err)
	}
	fmt.Fprintf(d.errs, "promoting %s\n", d.channel)
	return d.exec(c.Context(), promote, d.out)
}

// parse reads [TARGET=]INSTALLABLE. A flake's own equals signs stand behind what is no target.
func (d *deploy) parse(args []string) error {
	if len(args) < 2 {
		return errors.New("deploy: say what to build: an installable, as nix build takes it")
	}
	if err := signing.CheckChannel(d.channel); err != nil {
		return err
	}
	for _, arg := range args[1:] {
		target, rest, found := strings.Cut(arg, "=")
		if !found || signing.CheckTarget(target) != nil {
			target, rest = "", arg
		}
		if rest == "" || strings.HasPrefix(rest, "-") {
			return fmt.Errorf("%q is no installable", arg)
		}
		d.targets, d.installables = append(d.targets, target), append(d.installables, rest)
	}
	for _, target := range d.targets {
		if target == "" && len(d.targets) > 1 {
			return errors.New("with more than one system each needs its host: TARGET=INSTALLABLE")
		}
	}
	return nil
}

// features are experimental still.
var features = []string{"--extra-experimental-features", "nix-command flakes"}

// build builds what is to be deployed, one after the other.
func (d *deploy) build(ctx context.Context) error {
	fmt.Fprintf(d.errs, "building %s\n", strings.Join(d.installables, " "))
	for i, what := range d.installables {
		link := filepath.Join(d.work, fmt.Sprint("result-", i)) // a root of Nix, while this runs
		s := step{name: d.nix, args: append(append([]string{}, features...), "build", "--out-link", link, what)}
		if err := d.exec(ctx, s, d.out); err != nil {
			return fmt.Errorf("nix build: %w", err)
		}
		path, err := os.Readlink(link)
		if err != nil {
			return fmt.Errorf("%s has no output by the name of out: name the one that is the system, as %s^bin: %w", what, what, err)
		}
		d.sys = append(d.sys, path)
	}
	return nil
}

// upload is nix copy, to which the paths are added. What it sends it should not remember: a path without
// the cache's signature is not taken from there again (NixOS/nix#16175).
func (d *deploy) upload() (step, error) {
	u, err := api.ParseURL(d.config.Server)
	if err != nil {
		return step{}, fmt.Errorf("server %w", err)
	}
	to := d.to
	if to == "" {
		to = u.String() + "?compression=zstd"
	}
	if d.contentKey != "" {
		file, err := filepath.Abs(d.contentKey)
		if err != nil {
			return step{}, err
		}
		if err := d.config.CheckSecret(file); err != nil {
			return step{}, err
		}
		sep := "?"
		if strings.Contains(to, "?") {
			sep = "&"
		}
		to += sep + "secret-key=" + file
	}
	s := step{name: d.nix, env: []string{"XDG_CACHE_HOME=" + filepath.Join(d.work, "cache")}, args: append(append([]string{}, features...), "copy")}
	file, err := d.netrc(u.Hostname())
	if err != nil {
		return s, err
	}
	if file != "" {
		s.args = append(s.args, "--netrc-file", file)
	}
	s.args = append(s.args, "--to", to)
	return s, nil
}

// netrc is a file with the token: what login wrote, or one of this call; "" without a token.
func (d *deploy) netrc(host string) (string, error) {
	if d.config.TokenFile == "" {
		if kept, err := netrc.Password(d.config.Netrc(), host); kept == "" || err != nil {
			return "", err
		}
		return d.config.Netrc(), nil
	}
	token, err := command.ReadToken(d.config.TokenFile, strings.NewReader(""))
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	file := filepath.Join(d.work, "netrc")
	return file, netrc.Set(file, host, "narwharf", token)
}

// promote is our own command, with the flags that both have.
func (d *deploy) promote(c *cobra.Command) (step, error) {
	self, err := os.Executable()
	if err != nil {
		return step{}, err
	}
	s := step{name: self, args: []string{"promote", d.channel}}
	for i, path := range d.sys {
		if d.targets[i] != "" {
			path = d.targets[i] + "=" + path
		}
		s.args = append(s.args, path)
	}
	for _, name := range []string{"server", "token-file", "ca-file", "client-config"} {
		if f := c.Flags().Lookup(name); f.Changed {
			s.args = append(s.args, "--"+name, f.Value.String())
		}
	}
	for _, key := range d.keys {
		s.args = append(s.args, "--key", key)
	}
	if !d.noWait && !d.dry {
		s.args = append(s.args, "--wait")
	}
	s.args = append(s.args, d.more...)
	return s, nil
}

// A step is a command line.
type step struct {
	env  []string
	name string
	args []string
}

// String is the step as a shell takes it.
func (s step) String() string {
	words := append([]string{}, s.env...)
	for _, w := range append([]string{s.name}, s.args...) {
		if w == "" || strings.ContainsFunc(w, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=+,@%^", r)
		}) {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

// exec runs a step to its end. Its exit status becomes ours.
func (d *deploy) exec(ctx context.Context, s step, out io.Writer) error {
	if d.verbose {
		fmt.Fprintln(d.errs, "$ "+s.String())
	}
	cmd := exec.CommandContext(ctx, s.name, s.args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends in order
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), s.env...), out, d.errs
	err := cmd.Run()
	var failed *exec.ExitError
	if errors.As(err, &failed) && filepath.Base(s.name) != filepath.Base(d.nix) {
		return command.Exit(failed.ExitCode()) // it has said all
	}
	return err
}
