// Package firstboot makes scripts of first boots for hosts that trust their server.
package firstboot

import (
	"fmt"
	"time"

	"narwharf/hooks/intake"
	"narwharf/hooks/serverconfig"
	"narwharf/nixos/bootstrap"
	"narwharf/nixos/config"
	"narwharf/signing"
)

// notice is the first line of scripts that the server makes.
const notice = `TRUST = SERVER: with this script the machine believes whoever controls %s, now and later, in everything: keys, programs, systems.`

// Maker makes scripts for hosts that trust the server with this configuration, whose keys are keys; nil if it may not.
func Maker(c *serverconfig.Config, version string, keys func() []signing.PublicKey) func(intake.BootstrapRequest) (string, error) {
	if c.Bootstrap.Trust != string(config.TrustServer) || keys == nil {
		return nil
	}
	return func(r intake.BootstrapRequest) (string, error) {
		agents, err := c.Agents()
		if err != nil {
			return "", err
		}
		s := &bootstrap.Script{
			Channel: r.Channel, Server: c.PublicURL, Origin: r.Origin, Keys: r.Keys, Threshold: r.Threshold, KeysVersion: r.KeysVersion, Trust: config.TrustServer,
			MinSeq: r.Seq, Agents: agents, JoinToken: r.Token, Host: r.Host, Target: r.Target, Action: r.Action, Reboot: true,
			Patience: 30 * time.Minute, Notice: fmt.Sprintf(notice, c.PublicURL), Version: version,
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
