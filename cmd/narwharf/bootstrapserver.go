package main

import (
	"fmt"
	"time"

	"narwharf/hooks"
	"narwharf/hooks/serverconfig"
	"narwharf/nixos/bootstrap"
	"narwharf/nixos/config"
	"narwharf/signing"
)

// serverNotice is the first line of scripts that the server makes.
const serverNotice = `TRUST = SERVER: with this script the machine believes whoever controls %s, now and later, in everything: keys, programs, systems.`

// bootstrapMaker makes scripts for hosts that trust this server; nil if it may not.
func bootstrapMaker(c *serverconfig.Config, keys func() []signing.PublicKey) func(hooks.BootstrapRequest) (string, error) {
	if c.Bootstrap.Trust != string(config.TrustServer) || keys == nil {
		return nil
	}
	return func(r hooks.BootstrapRequest) (string, error) {
		agents, err := c.Agents()
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
