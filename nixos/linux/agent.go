package linux

import (
	"log/slog"
	"time"

	"narwharf/nixos"
	"narwharf/nixos/config"
)

// NewAgent makes the agent of a configuration.
func NewAgent(c *config.Config, h nixos.Host, version string, log *slog.Logger) *nixos.Agent {
	rules := c.Rules()
	rules.Agent = version
	return &nixos.Agent{
		Host: h, Journals: nixos.JournalIn(c.StateDir), Machine: nixos.Machine{Rules: rules}, Version: version, Log: log, Poll: time.Duration(c.Poll.Wait),
		Stager: &nixos.Stager{Host: h, StoreDir: c.StoreDir, ContentKeys: c.TrustedContent(), Foreign: c.Foreign, MinFree: c.MinFree},
	}
}
