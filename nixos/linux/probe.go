package linux

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
	"narwharf/nixos"
	"narwharf/nixos/config"
)

// Exit codes of `narwharf agent probe`.
const (
	ProbeExitOK          = 0
	ProbeExitRefused     = 3
	ProbeExitUnreachable = 4
)

// probeTimeout bounds the new system's agent, connection included.
const probeTimeout = 30 * time.Second

// probeProgram is the new system's agent and its configuration. A system
// without one is tried with this agent, and the text says so.
func (h *Host) probeProgram(path string) (program, config, text string) {
	program, config = filepath.Join(path, "sw", "bin", "narwharf"), filepath.Join(path, "etc", "narwharf", "agent.toml")
	if _, err := os.Stat(h.real(program)); err != nil {
		program, text = h.Program, "the system has no sw/bin/narwharf: this agent confirmed"
	} else {
		program = h.real(program)
	}
	if _, err := os.Stat(h.real(config)); err != nil {
		config = h.Config.Path()
		if text != "" {
			text += ", with this configuration"
		} else {
			text = "the system has no etc/narwharf/agent.toml: its agent confirmed with this configuration"
		}
	} else {
		config = h.real(config)
	}
	return program, config, text
}

// Probe implements Units. The new agent goes the way that its own unit says: a
// proxy of the running one's is none of its.
func (h *Host) Probe(ctx context.Context, path string, s *api.Status) nixos.Probed {
	program, config, by := h.probeProgram(path)
	text, err := json.Marshal(h.reporter.numbered(s))
	if err != nil {
		return nixos.Probed{Outcome: nixos.ProbeBroken, Text: err.Error(), By: by}
	}
	report := filepath.Join(h.Config.StateDir, "probe.json")
	if err := nixos.WriteDurably(report, text, 0o600); err != nil {
		return nixos.Probed{Outcome: nixos.ProbeUnreachable, Text: "this agent cannot write the report: " + err.Error(), By: by}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, words, err := command(ctx, 1024, changedWayOut(h.wayOut, unitWayOut(ctx)), program, "agent", "probe", "--config", config, "--report", report)
	if err == nil {
		h.reporter.took(s)
		return nixos.Probed{Outcome: nixos.ProbeOK, By: by}
	}
	if words == "" {
		words = err.Error()
	}
	p := nixos.Probed{Outcome: nixos.ProbeBroken, Text: clip.Text(words, 500), By: by}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == ProbeExitRefused:
		p.Outcome = nixos.ProbeRefused
	case errors.As(err, &exit) && exit.ExitCode() == ProbeExitUnreachable, ctx.Err() != nil:
		p.Outcome = nixos.ProbeUnreachable
	}
	return p
}

// SendProbe is `narwharf agent probe`: it sends a report that the running
// agent has written over a connection of its own, as the host that its own
// configuration says it is.
func SendProbe(ctx context.Context, c *config.Config, client *api.Client, version, report string) error {
	text, err := os.ReadFile(report)
	if err != nil {
		return err
	}
	s := new(api.Status)
	if err := json.Unmarshal(text, s); err != nil {
		return fmt.Errorf("%s: %w", report, err)
	}
	if s.Confirm == "" {
		return fmt.Errorf("%s: there is nothing to confirm", report)
	}
	s.Agent = version
	return client.PutStatus(ctx, c.Host, s, true)
}

// ProbeExit is the exit code for SendProbe's error.
func ProbeExit(err error) int {
	var refused *api.Error
	switch {
	case err == nil:
		return ProbeExitOK
	case errors.As(err, &refused) && refused.Status < 500:
		return ProbeExitRefused
	}
	return ProbeExitUnreachable
}
