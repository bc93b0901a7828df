package main

import (
	"errors"
	"fmt"
	"time"

	"narwharf/hooks"
	"narwharf/nixos/bootstrap"
	"narwharf/nixos/config"
	"narwharf/signing"
)

// serverNotice is the first line of scripts that the server makes.
const serverNotice = `TRUST = SERVER: with this script the machine believes whoever controls %s, now and later, in everything: keys, programs, systems.`

// checkBootstrap checks the section [bootstrap].
func (c *Config) checkBootstrap() error {
	b := &c.Bootstrap
	switch {
	case b.Trust == "" && len(b.Agents) == 0:
		return nil
	case b.Trust == "":
		return errors.New(`bootstrap.agents is given and bootstrap.trust is not: scripts are made here with trust = "server" alone`)
	case b.Trust != string(config.TrustServer):
		return fmt.Errorf("bootstrap.trust: %q is neither \"server\" nor \"\"", b.Trust)
	case c.PublicURL == "":
		return errors.New("bootstrap.trust needs public_url: hosts have to know where this server is")
	case len(b.Agents) == 0:
		return errors.New("bootstrap.agents is empty: name the store path of the narwharf package, as \"x86_64-linux=/nix/store/…\"")
	}
	if _, err := bootstrap.ParseAgents(b.Agents); err != nil {
		return fmt.Errorf("bootstrap.agents: %w", err)
	}
	return nil
}

// bootstrapMaker makes scripts for hosts that trust this server; nil if it may not.
func bootstrapMaker(c *Config, keys func() []signing.PublicKey) func(hooks.BootstrapRequest) (string, error) {
	if c.Bootstrap.Trust != string(config.TrustServer) || keys == nil {
		return nil
	}
	return func(r hooks.BootstrapRequest) (string, error) {
		agents, err := bootstrap.ParseAgents(c.Bootstrap.Agents)
		if err != nil {
			return "", err
		}
		s := &bootstrap.Script{
			Channel: r.Channel, Server: c.PublicURL, Origin: r.Origin, Keys: r.Keys, Threshold: r.Threshold, Trust: config.TrustServer,
			MinSeq: r.Seq, Agents: agents, JoinToken: r.Token, Host: r.Host, Target: r.Target, Action: r.Action, Reboot: true,
			Patience: 30 * time.Minute, Notice: fmt.Sprintf(serverNotice, c.PublicURL), Version: versionText(),
		}
		for _, k := range keys() {
			s.ContentKeys = append(s.ContentKeys, k.String())
		}
		if r.CloudConfig {
			return s.CloudConfig()
		}
		return s.Text()
	}
}
