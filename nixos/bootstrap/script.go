// Package bootstrap makes the script that turns a stock NixOS image into a host of a
// channel at its first boot. The script needs nix-store and curl alone. It holds the
// store path of the agent and the keys that must have signed it, fetches the agent
// from the one server, and runs narwharf agent once, which verifies the release. It
// can be run again, and twice at once. docs/hosts.md has its exit status.
//
// What goes into a script is checked here, where somebody sees it, and not on the
// host. Errors name the flags of narwharf bootstrap.
package bootstrap

import (
	"cmp"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/nixos/config"
	"narwharf/nixos/identity"
	"narwharf/signing/access"
)

// body is the part of the script that is always the same.
//
//go:embed script.sh
var body string

// A Script is what a first boot's script is made of.
type Script struct {
	Channel, Server, Origin string
	Keys                    []string // promoters'
	Threshold               int
	KeysVersion             int64         // of the statement that Keys are of; 0: of none
	RecoveryKeys            []string      // which revoke others
	RequireFresh            time.Duration // an older release is an alarm; 0: none is
	ContentKeys             []string      // who vouches for the agent's bytes and all others
	Trust                   config.Trust
	MinSeq                  int64
	Agents                  map[string]string // "x86_64-linux", or "" for all, to a store path
	JoinToken               string
	Identity                identity.Config // in place of a join token: how the machine says who it is
	Host, Target            string          // may be ""
	Action                  string          // may be ""; what auto means at this first time
	CA                      string          // PEM; may be ""
	Reboot                  bool
	Patience                time.Duration
	Notice                  string // a first line for people; may be ""
	Version                 string // of who makes it
}

// stateDir is the agent's default state_dir, which the system that comes
// takes up again.
var stateDir = config.Default().StateDir

// shQuote makes one word of s for a POSIX shell, which is s again.
func shQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// agentConfigText is the agent.toml of the first boot.
func (s *Script) agentConfigText() (string, error) {
	dir := filepath.Join(stateDir, "bootstrap")
	c := map[string]any{
		"server": []string{s.Server}, "channel": s.Channel, "origin": s.Origin, "keys": s.Keys, "threshold": s.Threshold,
		"min_seq": s.MinSeq,
	}
	if s.Identity.Kind == "" {
		c["join_token_file"] = filepath.Join(dir, "join-token")
	} else {
		c["identity"] = s.identity()
	}
	if s.KeysVersion != 0 {
		c["keys_version"] = s.KeysVersion
	}
	if len(s.RecoveryKeys) > 0 {
		c["recovery_keys"] = s.RecoveryKeys
	}
	if s.RequireFresh != 0 {
		c["require_fresh"] = s.RequireFresh.String()
	}
	if s.Trust == config.TrustServer {
		c["trust"], c["server_keys"] = string(s.Trust), s.ContentKeys
	} else {
		c["content_keys"] = s.ContentKeys
	}
	if s.Host != "" {
		c["host"] = s.Host
	}
	if s.Target != "" {
		c["target"] = s.Target
	}
	if s.CA != "" {
		c["ca_file"] = filepath.Join(dir, "ca.pem")
	}
	if s.Action != "" {
		c["activation"] = map[string]string{"auto": s.Action}
	}
	text, err := toml.Marshal(c)
	return string(text), err
}

// identity is the section of agent.toml.
func (s *Script) identity() map[string]string {
	is := map[string]string{"kind": s.Identity.Kind}
	for name, value := range map[string]string{"from": s.Identity.From, "audience": s.Identity.Audience} {
		if value != "" {
			is[name] = value
		}
	}
	return is
}

// check refuses what would fail on the host, where nobody sees it.
func (s *Script) check(agentConfig string) error {
	if s.Identity.Kind == "" {
		if _, err := access.ParseSecret(s.JoinToken); err != nil {
			return fmt.Errorf("--join-token-file: the token %w", err)
		}
	}
	if len(s.Agents) == 0 {
		return errors.New("--agent is missing: the store path of the narwharf package, which has to be in the cache")
	}
	for system, path := range s.Agents {
		if !systemGrammar.MatchString(system) {
			return fmt.Errorf("--agent: %q is not a system like x86_64-linux", system)
		}
		if _, err := narinfo.ParsePath(config.Default().StoreDir, path); err != nil {
			return fmt.Errorf("--agent: %w", err)
		}
	}
	if strings.Contains(s.CA, "\x00") {
		return errors.New("--ca-file: it is not PEM")
	}
	if s.Patience < time.Second {
		return errors.New("--timeout: less than a second")
	}
	// The rest is what the agent will check.
	dir, err := os.MkdirTemp("", "narwharf-bootstrap-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // no secret is in it, and /tmp is emptied by others
	name := filepath.Join(dir, "agent.toml")
	if err := os.WriteFile(name, []byte(agentConfig), 0o600); err != nil {
		return err
	}
	if _, err := config.Load(name); err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), name+": ", ""))
	}
	return nil
}

var systemGrammar = regexp.MustCompile(`^([a-z0-9_]+-linux)?$`)

// Text is the whole, for /bin/sh.
func (s *Script) Text() (string, error) {
	u, err := api.ParseURL(s.Server)
	if err != nil {
		return "", fmt.Errorf("--server: %w", err)
	}
	config, err := s.agentConfigText()
	if err != nil {
		return "", err
	}
	if err := s.check(config); err != nil {
		return "", err
	}
	first, reboot := "#!/bin/sh", "no"
	if s.Notice != "" {
		first = "# " + s.Notice
	}
	if s.Reboot {
		reboot = "yes"
	}
	var b strings.Builder
	fmt.Fprintf(&b, `%s
# Makes this machine a host of the channel %s: fetches the agent, whose path and keys
# stand here, and lets it do what the channel says. Made by narwharf %s.
# %s

`, first, s.Channel, s.Version, s.secrecy())
	for _, v := range [][2]string{
		{"channel", s.Channel}, {"server", u.String()}, {"server_name", u.Hostname()}, {"state", stateDir},
		{"host", s.Host}, {"content_keys", strings.Join(s.ContentKeys, " ")}, {"join_token", s.JoinToken}, {"reboot", reboot},
		{"identity", cmp.Or(s.Identity.From, s.Identity.Kind)}, {"audience", cmp.Or(s.Identity.Audience, u.String())},
		{"patience", fmt.Sprint(int(s.Patience / time.Second))}, {"server_tries", fmt.Sprint(triesIn(s.Patience))},
		{"ca", s.CA}, {"config", config},
	} {
		fmt.Fprintf(&b, "%s=%s\n", v[0], shQuote(v[1]))
	}
	return b.String() + s.agentFor() + body, nil
}

// secrecy says what becomes of who reads the script.
func (s *Script) secrecy() string {
	if s.Identity.Kind != "" {
		return "It holds no secret: the machine itself says who it is."
	}
	return "It holds a join token: until that is used or expires, keep this from others."
}

// agentFor is the shell function that picks the agent's store path.
func (s *Script) agentFor() string {
	var b strings.Builder
	b.WriteString("\n# agent_for MACHINE, as uname -m has it.\nagent_for() {\n  case $1-linux in\n")
	systems := slices.Sorted(maps.Keys(s.Agents))
	slices.Reverse(systems) // "" comes last
	for _, system := range systems {
		match := "*"
		if system != "" {
			match = unameOf(system)
		}
		fmt.Fprintf(&b, "    %s) echo %s ;;\n", match, shQuote(s.Agents[system]))
	}
	if s.Agents[""] == "" {
		b.WriteString("    *) return 1 ;;\n")
	}
	b.WriteString("  esac\n}\n\n")
	return b.String()
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

// In is the script in a format, script or cloud-config.
func (s *Script) In(format string) (string, error) {
	if format == "cloud-config" {
		return s.CloudConfig()
	}
	return s.Text()
}

// CloudConfig is the script wrapped for cloud-init.
func (s *Script) CloudConfig() (string, error) {
	const path = "/run/narwharf-bootstrap.sh"
	script, err := s.Text()
	if err != nil {
		return "", err
	}
	text := "#cloud-config\n" // has to be the first line
	if s.Notice != "" {
		text += "# " + s.Notice + "\n"
	}
	return text + "write_files:\n  - path: " + path + "\n    permissions: '0700'\n    owner: root:root\n    encoding: b64\n    content: " +
		base64.StdEncoding.EncodeToString([]byte(script)) + "\nruncmd:\n  - [sh, " + path + "]\n  - [rm, -f, " + path + "]\n", nil
}
