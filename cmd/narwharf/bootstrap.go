package main

import (
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"

	"narwharf/narinfo"
	"narwharf/nixos/config"
	"narwharf/signing"
	"narwharf/signing/access"
)

// bootstrapBody is the part of the script that is always the same.
//
//go:embed bootstrap.sh
var bootstrapBody string

// bootstrap is what a first boot's script is made of.
type bootstrap struct {
	Channel, Server, Origin string
	Keys                    []string // promoters'
	Threshold               int
	ContentKeys             []string // who vouches for the agent's bytes and all others
	Trust                   config.Trust
	MinSeq                  int64
	Agents                  map[string]string // "x86_64-linux", or "" for all, to a store path
	JoinToken               string
	Host, Target            string // may be ""
	Action                  string // may be ""; what auto means at this first time
	CA                      string // PEM; may be ""
	Reboot                  bool
	Patience                time.Duration
	Notice                  string // a first line for people; may be ""
}

// bootstrapState is the agent's default state_dir, which the system that comes
// takes up again.
var bootstrapState = config.Default().StateDir

// shQuote makes one word of s for a POSIX shell, which is s again.
func shQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// agentConfigText is the agent.toml of the first boot.
func (b *bootstrap) agentConfigText() (string, error) {
	dir := filepath.Join(bootstrapState, "bootstrap")
	c := map[string]any{
		"server": []string{b.Server}, "channel": b.Channel, "origin": b.Origin, "keys": b.Keys, "threshold": b.Threshold,
		"min_seq": b.MinSeq, "join_token_file": filepath.Join(dir, "join-token"),
	}
	if b.Trust == config.TrustServer {
		c["trust"], c["server_keys"] = string(b.Trust), b.ContentKeys
	} else {
		c["content_keys"] = b.ContentKeys
	}
	for key, value := range map[string]string{"host": b.Host, "target": b.Target} {
		if value != "" {
			c[key] = value
		}
	}
	if b.CA != "" {
		c["ca_file"] = filepath.Join(dir, "ca.pem")
	}
	if b.Action != "" {
		c["activation"] = map[string]string{"auto": b.Action}
	}
	text, err := toml.Marshal(c)
	return string(text), err
}

// check refuses what would fail on the host, where nobody sees it.
func (b *bootstrap) check() error {
	u, err := url.Parse(b.Server)
	if err == nil && u.User != nil {
		return fmt.Errorf("--server: the URL of %s holds credentials: hosts get theirs by the join token", u.Host)
	}
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("--server: %q is not a URL like https://cache.example.org", b.Server)
	}
	if _, err := access.ParseSecret(b.JoinToken); err != nil {
		return fmt.Errorf("--join-token-file: the token %w", err)
	}
	if len(b.Agents) == 0 {
		return errors.New("--agent is missing: the store path of the narwharf package, which has to be in the cache")
	}
	for system, path := range b.Agents {
		if !systemGrammar.MatchString(system) {
			return fmt.Errorf("--agent: %q is not a system like x86_64-linux", system)
		}
		if _, err := narinfo.ParsePath(config.Default().StoreDir, path); err != nil {
			return fmt.Errorf("--agent: %w", err)
		}
	}
	if strings.Contains(b.CA, "\x00") {
		return errors.New("--ca-file: it is not PEM")
	}
	if b.Patience < time.Second {
		return errors.New("--timeout: less than a second")
	}
	// The rest is what the agent will check.
	text, err := b.agentConfigText()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "narwharf-bootstrap-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // no secret is in it, and /tmp is emptied by others
	name := filepath.Join(dir, "agent.toml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		return err
	}
	if _, err := config.Load(name); err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), name+": ", ""))
	}
	return nil
}

var systemGrammar = regexp.MustCompile(`^([a-z0-9_]+-linux)?$`)

// script is the whole, for /bin/sh.
func (b *bootstrap) script() (string, error) {
	if err := b.check(); err != nil {
		return "", err
	}
	config, err := b.agentConfigText()
	if err != nil {
		return "", err
	}
	u, err := url.Parse(b.Server)
	if err != nil {
		return "", err
	}
	var s strings.Builder
	if b.Notice != "" {
		fmt.Fprintf(&s, "# %s\n", b.Notice)
	} else {
		s.WriteString("#!/bin/sh\n")
	}
	fmt.Fprintf(&s, "# Makes this machine a host of the channel %s: fetches the agent, whose path and keys\n# stand here, and lets it do what the channel says. Made by narwharf %s.\n# It holds a join token: until that is used or expires, keep this from others.\n\n", b.Channel, versionText())
	reboot := "no"
	if b.Reboot {
		reboot = "yes"
	}
	for _, v := range [][2]string{
		{"channel", b.Channel}, {"server", strings.TrimRight(b.Server, "/")}, {"server_name", u.Hostname()}, {"state", bootstrapState},
		{"host", b.Host}, {"content_keys", strings.Join(b.ContentKeys, " ")}, {"join_token", b.JoinToken}, {"reboot", reboot},
		{"patience", fmt.Sprint(int(b.Patience / time.Second))}, {"server_tries", fmt.Sprint(triesIn(b.Patience))},
		{"ca", b.CA}, {"config", config},
	} {
		fmt.Fprintf(&s, "%s=%s\n", v[0], shQuote(v[1]))
	}
	s.WriteString("\n# agent_for MACHINE, as uname -m has it.\nagent_for() {\n  case $1-linux in\n")
	systems := make([]string, 0, len(b.Agents))
	for system := range b.Agents {
		systems = append(systems, system)
	}
	slices.Sort(systems)
	slices.Reverse(systems) // "" comes last
	for _, system := range systems {
		match := "*"
		if system != "" {
			match = unameOf(system)
		}
		fmt.Fprintf(&s, "    %s) echo %s ;;\n", match, shQuote(b.Agents[system]))
	}
	if b.Agents[""] == "" {
		s.WriteString("    *) return 1 ;;\n")
	}
	s.WriteString("  esac\n}\n\n")
	s.WriteString(bootstrapBody)
	return s.String(), nil
}

// triesIn is how often `again` of the script tries within a time.
func triesIn(d time.Duration) int {
	n := 1
	for pause := time.Second; d > 0; n++ {
		d -= pause
		pause = min(2*pause, 15*time.Second)
	}
	return n
}

// unameOf is a pattern for `uname -m`-linux of a Nix system.
func unameOf(system string) string {
	if machine := strings.TrimSuffix(system, "-linux"); machine == "i686" {
		return "i?86-linux"
	}
	return system
}

// cloudConfig wraps a script for cloud-init.
func cloudConfig(script string) string {
	const path = "/run/narwharf-bootstrap.sh"
	return "#cloud-config\nwrite_files:\n  - path: " + path + "\n    permissions: '0700'\n    owner: root:root\n    encoding: b64\n    content: " +
		base64.StdEncoding.EncodeToString([]byte(script)) + "\nruncmd:\n  - [sh, " + path + "]\n  - [rm, -f, " + path + "]\n"
}

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
	b := &bootstrap{Trust: config.TrustPromoter, Reboot: true}
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
		if b.Origin, err = (&clientConfig{Server: b.Server}).origin(b.Origin, b.Channel); err != nil {
			return fmt.Errorf("--server: %w", err)
		}
		if b.Keys, err = publicKeyTexts("--key", *keys); err != nil {
			return err
		}
		if b.ContentKeys, err = publicKeyTexts("--content-key", *contentKeys); err != nil {
			return err
		}
		if b.Agents, err = parseAgents(*agents); err != nil {
			return err
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
		text, err := b.script()
		if err != nil {
			return err
		}
		if *format == "cloud-config" {
			text = cloudConfig(text)
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

// parseAgents reads PATH and SYSTEM=PATH.
func parseAgents(values []string) (map[string]string, error) {
	agents := make(map[string]string)
	for _, v := range values {
		system, path, ok := strings.Cut(v, "=")
		if !ok {
			system, path = "", v
		}
		if _, twice := agents[system]; twice {
			return nil, fmt.Errorf("--agent: two paths for the same system (%q)", system)
		}
		agents[system] = path
	}
	return agents, nil
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
