package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/keys"
	"narwharf/hooks/api"
	"narwharf/hooks/configfile"
	"narwharf/nixos/bootstrap"
	"narwharf/nixos/config"
	"narwharf/signing"
)

func bootstrapCommand() *cobra.Command {
	c := command.New("bootstrap CHANNEL", "print the script that makes a new machine a host, as user-data", 1, 1,
		`Prints a script for the first boot of a stock NixOS image, which needs nix-store
and curl alone. It fetches the agent, whose store path and content keys stand in
it, from this server and no other, and runs narwharf agent once: that joins by
the token, verifies the release by your keys, and switches. It can be run again,
and twice at once. Make it where the keys are; the server has no part in it.

    narwharf token new --join web --host web-7 --out web-7.join
    narwharf bootstrap web --server https://cache.example.org \
      --key deploy.pub --content-key ci.pub --min-seq 42 \
      --agent /nix/store/…-narwharf --join-token-file web-7.join --host web-7

With --identity in place of --join-token-file the script holds no secret: the machine
says who it is by its SSH host key (ssh), its role (aws), or the JWT of its cloud (gcp;
azure with --audience). The server has to know it: docs/hosts.md.

Else the script holds the join token: who can read the machine's user-data can join
in its place until it has. docs/hosts.md has the exit status and what to do.`)
	f := &bootstrapFlags{Script: bootstrap.Script{Trust: config.TrustPromoter, Version: versionText()}}
	f.add(c)
	for _, name := range []string{"server", "key", "content-key", "min-seq", "agent"} {
		command.Must(c.MarkFlagRequired(name))
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		f.Channel = args[0]
		if err := f.read(c.InOrStdin()); err != nil {
			return err
		}
		if err := f.CheckJoinToken(c.Context(), f.caFile); err != nil {
			return fmt.Errorf("--join-token-file: %w", err)
		}
		text, err := f.In(f.format)
		if err != nil {
			return err
		}
		_, err = io.WriteString(c.OutOrStdout(), text)
		return err
	}
	return c
}

// bootstrapFlags are the script and what is read for it.
type bootstrapFlags struct {
	bootstrap.Script
	keys, contentKeys, recovery, agents []string
	tokenFile, caFile, format           string
	identity                            string
	noReboot                            bool
}

// add adds them to a command.
func (f *bootstrapFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.Server, "server", "", "`URL` of the server, as the host has to name it")
	flags.StringArrayVar(&f.keys, "key", nil, "a promoter's public `KEY`, or a file with it; may be repeated")
	flags.StringArrayVar(&f.contentKeys, "content-key", nil, "public `KEY`, or a file with it, whose signature makes a path good; may be repeated")
	flags.IntVar(&f.Threshold, "threshold", 1, "how many of the keys must have signed")
	flags.Int64Var(&f.KeysVersion, "keys-version", 0, "which `VERSION` of the channel's keys these are (narwharf channel keys)")
	flags.StringArrayVar(&f.recovery, "recovery-key", nil, "public `KEY`, or a file with it, that revokes promoters' keys; may be repeated")
	flags.Var((*configfile.Duration)(&f.RequireFresh), "require-fresh", "alarm if the newest release is older than this")
	flags.Int64Var(&f.MinSeq, "min-seq", 0, "take no release below this `SEQ`: the channel's, now")
	flags.StringArrayVar(&f.agents, "agent", nil, "store `PATH` of the narwharf package; SYSTEM=PATH, repeated, for several systems")
	flags.StringVar(&f.tokenFile, "join-token-file", "", "`FILE` with the join token; - is stdin")
	flags.StringVar(&f.identity, "identity", "", "how the machine says who it is, without a join token: `ssh`, aws, gcp or azure")
	flags.StringVar(&f.Identity.Audience, "audience", "", "with gcp and azure: for whom the JWT is (default with gcp: the server's `URL`)")
	flags.StringVar(&f.Host, "host", "", "`NAME` of the host (default: the machine's host name)")
	flags.StringVar(&f.Target, "target", "", "whose entry of a release the host takes (default: the host's name)")
	flags.StringVar(&f.Origin, "origin", "", "what releases give as their origin (default: the server's name, a slash, the channel)")
	flags.StringVar(&f.Action, "action", "", "`switch` or boot, where the release says auto (default: switch if that is enough)")
	flags.StringVar(&f.caFile, "ca-file", "", "`FILE` with certificates to trust instead of the system's")
	flags.BoolVar(&f.noReboot, "no-reboot", false, "do not reboot, where the new system needs that")
	f.Patience = 30 * time.Minute
	flags.Var((*configfile.Duration)(&f.Patience), "timeout", "how long the host tries")
	flags.StringVar(&f.format, "format", "script", "script, or `cloud-config` with the script in it")
}

// read reads what flags name.
func (f *bootstrapFlags) read(stdin io.Reader) error {
	switch {
	case f.Action != "" && f.Action != string(signing.Switch) && f.Action != string(signing.Boot):
		return fmt.Errorf("--action: %q is neither switch nor boot", f.Action)
	case f.format != "script" && f.format != "cloud-config":
		return fmt.Errorf("--format: %q is neither script nor cloud-config", f.format)
	case f.MinSeq < 1:
		return errors.New("--min-seq: name the channel's seq (narwharf channel show): a new machine knows none, and would take an old release for the last")
	}
	u, err := api.ParseURL(f.Server)
	if err != nil {
		return fmt.Errorf("--server: %w", err)
	}
	if f.Origin == "" {
		f.Origin = u.Hostname() + "/" + f.Channel
	}
	f.Reboot = !f.noReboot
	if f.Keys, err = publicKeyTexts("--key", f.keys, signing.ParsePromoterKey); err != nil {
		return err
	}
	if f.ContentKeys, err = publicKeyTexts("--content-key", f.contentKeys, signing.ParsePublicKey); err != nil {
		return err
	}
	if f.RecoveryKeys, err = publicKeyTexts("--recovery-key", f.recovery, signing.ParsePromoterKey); err != nil {
		return err
	}
	if f.Agents, err = configfile.BySystem(f.agents); err != nil {
		return fmt.Errorf("--agent: %w", err)
	}
	if err := f.SetIdentity(f.identity); err != nil {
		return fmt.Errorf("--identity: %w", err)
	}
	switch {
	case f.identity == "" && f.tokenFile == "":
		return errors.New("say how the machine shows who it is: --join-token-file FILE (narwharf token new --join " + f.Channel + "), or --identity, which needs no secret")
	case f.identity != "" && f.tokenFile != "":
		return errors.New("--identity needs no token: leave --join-token-file out")
	}
	if f.tokenFile != "" {
		if f.JoinToken, err = command.ReadToken(f.tokenFile, stdin); err != nil {
			return fmt.Errorf("--join-token-file: %w", err)
		}
	}
	if f.caFile != "" {
		text, err := os.ReadFile(f.caFile)
		if err != nil {
			return fmt.Errorf("--ca-file: %w", err)
		}
		f.CA = string(text)
	}
	return nil
}

func publicKeyTexts(what string, values []string, parse func(string) (signing.PublicKey, error)) ([]string, error) {
	list, err := keys.ParsePublic(what, values, parse)
	texts := make([]string, 0, len(list))
	for _, k := range list {
		texts = append(texts, k.String())
	}
	return texts, err
}
