package linux

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"narwharf/cache/state/durable"
	"narwharf/hooks/api"
	"narwharf/nixos"
	"narwharf/nixos/config"
	"narwharf/nixos/journal"
	"narwharf/nixos/linux/nix"
	"narwharf/nixos/linux/systemd"
	"narwharf/nixos/machine"
	"narwharf/nixos/remote"
)

// A Host is the machine that this process runs on, and its server.
type Host struct {
	nixos.Host
	config *config.Config
	log    *slog.Logger
	store  *nix.Store
	server *remote.Server
	unit   string // fingerprint of the own unit at the start
}

// New makes the directories that the agent needs. The program records how runs end; it is
// this one.
func New(c *config.Config, client *api.Client, program string, log *slog.Logger) (*Host, error) {
	for _, d := range []string{c.StateDir, filepath.Join(c.StateDir, "runs"), filepath.Join(c.StateDir, "gcroots")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
	}
	ctx := context.Background()
	systems := systems{c.StoreRoot, c.StoreDir, c.RunDir}
	system := &system{config: c, systems: systems, profile: profile{c.Profile}}
	h := &Host{
		config: c, log: log, store: nix.New(c, client, log), unit: systemd.Fingerprint(ctx, c.Path()),
		server: remote.New(remote.Options{Client: client, Host: c.Host, Channel: c.Channel, Target: c.Target, Log: log, Look: system.look}),
	}
	h.Host = nixos.Host{
		System:  system,
		Boot:    &boot{profile: system.profile, systems: systems, stateDir: c.StateDir},
		Runs:    &systemd.Runs{Dir: filepath.Join(c.StateDir, "runs"), RunDir: c.RunDir, Program: program, Timeout: time.Duration(c.Activation.Timeout)},
		Health:  &health{config: c, systems: systems, log: log},
		Network: &network{config: c, systems: systems, program: program, proxy: systemd.Environment(ctx, proxyVariables)},
		Store:   h.store,
		Server:  h.server,
	}
	return h, nil
}

// Close ends what runs in the background, after one more try to deliver the last report.
func (h *Host) Close(ctx context.Context) {
	h.server.Close(ctx)
	h.store.Close()
}

// sweep removes what agents left that were killed while they wrote a file.
func (h *Host) sweep() {
	if err := durable.Sweep(h.config.StateDir, time.Hour); err != nil {
		h.log.Warn("files that were not written to their ends stay", "error", err)
	}
}

// unitChanged tells whether the agent's own unit or configuration is another than when it
// was started.
func (h *Host) unitChanged(ctx context.Context) bool {
	if h.unit == "" {
		return false
	}
	now := systemd.Fingerprint(ctx, h.config.Path())
	return now != "" && now != h.unit
}

// Agent is the agent of the host, as its configuration wants it.
func (h *Host) Agent(version string) *nixos.Agent {
	c := h.config
	rules := c.Rules()
	rules.Agent = version
	a := &nixos.Agent{
		Host: h.Host, Journals: journal.File{StateDir: c.StateDir}, Machine: machine.Machine{Rules: rules}, Version: version, Log: h.log, Poll: time.Duration(c.Poll.Wait),
		Stager: &nixos.Stager{Host: h.Host, StoreDir: c.StoreDir, ContentKeys: c.TrustedContent(), Foreign: c.Foreign, MinFree: c.MinFree},
	}
	if c.Metrics.Textfile != "" {
		a.Observe = (&textfile{name: c.Metrics.Textfile, log: h.log}).observe
	}
	return a
}
