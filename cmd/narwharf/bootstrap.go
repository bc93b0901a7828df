package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"narwharf/hooks/api"
	"narwharf/hooks/configfile"
	"narwharf/nixos/bootstrap"
	"narwharf/nixos/config"
	"narwharf/signing"
)

func bootstrapCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bootstrap CHANNEL",
		Short: "print the script that makes a new machine a host, as user-data",
		Long: `Prints a script for the first boot of a stock NixOS image, which needs nix-store
and curl alone. It fetches the agent, whose store path and content keys stand in
it, from this server and no other, and runs narwharf agent once: that joins by
the token, verifies the release by your keys, and switches. It can be run again,
and twice at once. Make it where the keys are; the server has no part in it.

    narwharf token new --join web --host web-7 > web-7.join
    narwharf bootstrap web --server https://cache.example.org \
      --key deploy.pub --content-key ci.pub --min-seq 42 \
      --agent /nix/store/…-narwharf --join-token-file web-7.join --host web-7

The script holds the join token: who can read the machine's user-data can join
in its place until it has. docs/hosts.md has the exit status and what to do.`,
		Args: cobra.ExactArgs(1),
	}
	b := &bootstrap.Script{Trust: config.TrustPromoter, Reboot: true, Version: versionText()}
	flags := c.Flags()
	flags.StringVar(&b.Server, "server", "", "`URL` of the server, as the host has to name it")
	keys := flags.StringArray("key", nil, "a promoter's public `KEY`, or a file with it; may be repeated")
	contentKeys := flags.StringArray("content-key", nil, "public `KEY`, or a file with it, whose signature makes a path good; may be repeated")
	flags.IntVar(&b.Threshold, "threshold", 1, "how many of the keys must have signed")
	flags.Int64Var(&b.MinSeq, "min-seq", 0, "take no release below this `SEQ`: the channel's, now")
	agents := flags.StringArray("agent", nil, "store `PATH` of the narwharf package; SYSTEM=PATH, repeated, for several systems")
	tokenFile := flags.String("join-token-file", "", "`FILE` with the join token; - is stdin")
	flags.StringVar(&b.Host, "host", "", "`NAME` of the host (default: the machine's host name)")
	flags.StringVar(&b.Target, "target", "", "whose entry of a release the host takes (default: the host's name)")
	flags.StringVar(&b.Origin, "origin", "", "what releases give as their origin (default: the server's name, a slash, the channel)")
	flags.StringVar(&b.Action, "action", "", "`switch` or boot, where the release says auto (default: switch if that is enough)")
	caFile := flags.String("ca-file", "", "`FILE` with certificates to trust instead of the system's")
	noReboot := flags.Bool("no-reboot", false, "do not reboot, where the new system needs that")
	flags.DurationVar(&b.Patience, "timeout", 30*time.Minute, "how long the host tries")
	format := flags.String("format", "script", "script, or `cloud-config` with the script in it")
	for _, name := range []string{"server", "key", "content-key", "min-seq", "agent", "join-token-file"} {
		must(c.MarkFlagRequired(name))
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		b.Channel, b.Reboot = args[0], !*noReboot
		if b.Action != "" && b.Action != string(signing.Switch) && b.Action != string(signing.Boot) {
			return fmt.Errorf("--action: %q is neither switch nor boot", b.Action)
		}
		if *format != "script" && *format != "cloud-config" {
			return fmt.Errorf("--format: %q is neither script nor cloud-config", *format)
		}
		if b.MinSeq < 1 {
			return errors.New("--min-seq: name the channel's seq (narwharf channel show): a new machine knows none, and would take an old release for the last")
		}
		var err error
		if u, err := api.ParseURL(b.Server); err != nil {
			return fmt.Errorf("--server: %w", err)
		} else if b.Origin == "" {
			b.Origin = u.Hostname() + "/" + b.Channel
		}
		if b.Keys, err = publicKeyTexts("--key", *keys); err != nil {
			return err
		}
		if b.ContentKeys, err = publicKeyTexts("--content-key", *contentKeys); err != nil {
			return err
		}
		if b.Agents, err = configfile.BySystem(*agents); err != nil {
			return fmt.Errorf("--agent: %w", err)
		}
		if b.JoinToken, err = readToken(*tokenFile, c.InOrStdin()); err != nil {
			return fmt.Errorf("--join-token-file: %w", err)
		}
		if *caFile != "" {
			text, err := os.ReadFile(*caFile)
			if err != nil {
				return fmt.Errorf("--ca-file: %w", err)
			}
			b.CA = string(text)
		}
		text, err := b.Text()
		if *format == "cloud-config" {
			text, err = b.CloudConfig()
		}
		if err != nil {
			return err
		}
		_, err = io.WriteString(c.OutOrStdout(), text)
		return err
	}
	return c
}

func publicKeyTexts(what string, values []string) ([]string, error) {
	keys, err := parsePublicKeys(what, values)
	texts := make([]string, 0, len(keys))
	for _, k := range keys {
		texts = append(texts, k.String())
	}
	return texts, err
}

// readToken reads a token from a file, or from stdin if that is "-".
func readToken(file string, stdin io.Reader) (string, error) {
	var text []byte
	var err error
	if file == "-" {
		text, err = io.ReadAll(io.LimitReader(stdin, 4096))
	} else {
		text, err = os.ReadFile(file)
	}
	return strings.TrimSpace(string(text)), err
}
