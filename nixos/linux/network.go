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

	"narwharf/cache/state/durable"
	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
	"narwharf/nixos/config"
	"narwharf/nixos/effect"
	"narwharf/nixos/linux/join"
	"narwharf/nixos/linux/sys"
	"narwharf/nixos/linux/systemd"
	"narwharf/nixos/linux/witness"
	"narwharf/nixos/remote"
)

// Exit codes of `narwharf agent probe`.
const (
	exitOK          = 0
	exitRefused     = 3
	exitUnreachable = 4
)

// probeTimeout bounds the new system's agent, connection included.
const probeTimeout = 30 * time.Second

// A network implements nixos.Network.
type network struct {
	config  *config.Config
	systems systems
	client  *api.Client
	program string            // this one
	proxy   map[string]string // what the agent's own unit set of proxyVariables when it started
}

// probeProgram is the new system's agent and its configuration. A system
// without one is tried with this agent, and the text says so.
func (n *network) probeProgram(path string) (program, config, text string) {
	program, config = n.systems.real(filepath.Join(path, "sw", "bin", "narwharf")), n.systems.real(filepath.Join(path, "etc", "narwharf", "agent.toml"))
	if _, err := os.Stat(program); err != nil {
		program, text = n.program, "the system has no sw/bin/narwharf: this agent confirmed"
	}
	if _, err := os.Stat(config); err != nil {
		config = n.config.Path()
		if text == "" {
			return program, config, "the system has no etc/narwharf/agent.toml: its agent confirmed with this configuration"
		}
		text += ", with this configuration"
	}
	return program, config, text
}

func words(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Probe gives the new agent the proxy of its own unit, which
// may be another than that of the running agent.
func (n *network) Probe(ctx context.Context, path string, s *api.Status) effect.Probed {
	program, config, by := n.probeProgram(path)
	if _, err := os.Stat(config); err != nil { // the switch took that of this agent with it: the system is to be the last
		err := n.client.PutStatus(ctx, n.config.Host, s, true)
		return effect.Probed{Outcome: remote.Outcome(err), Text: words(err), By: "the system has no agent: this one confirmed"}
	}
	text, err := json.Marshal(s)
	if err != nil {
		return effect.Probed{Outcome: effect.ProbeBroken, Text: err.Error(), By: by}
	}
	report := filepath.Join(n.config.StateDir, "probe.json")
	if err := durable.WriteFile(report, text, 0o600); err != nil {
		return effect.Probed{Outcome: effect.ProbeUnreachable, Text: "this agent cannot write the report: " + err.Error(), By: by}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, words, err := sys.Run(ctx, 1024, systemd.Changes(proxyVariables, n.proxy, systemd.Environment(ctx, proxyVariables)), program, "agent", "probe", "--config", config, "--report", report)
	if err == nil {
		return effect.Probed{Outcome: effect.ProbeOK, By: by}
	}
	if words == "" {
		words = err.Error()
	}
	p := effect.Probed{Outcome: effect.ProbeBroken, Text: clip.Text(words, 500), By: by}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == exitRefused:
		p.Outcome = effect.ProbeRefused
	case errors.As(err, &exit) && exit.ExitCode() == exitUnreachable, ctx.Err() != nil:
		p.Outcome = effect.ProbeUnreachable
	}
	return p
}

func (n *network) Witness(ctx context.Context) (alive bool, text string) {
	return witness.Ask(ctx, n.config.Witnesses)
}

// Probe is `narwharf agent probe`, which Network.Probe of another agent calls: it sends a
// report that the running agent has written, as the host that its own configuration says
// it is. The exit status is 0 where the error is of this agent or its configuration.
func Probe(ctx context.Context, o Options, report string) (exit int, err error) {
	client, as, err := join.NewClient(ctx, o.Config, o.Version, o.Log)
	if err != nil {
		return 0, err
	}
	o.Config = as
	err = sendReport(ctx, client, o, report)
	return map[effect.ProbeOutcome]int{effect.ProbeOK: exitOK, effect.ProbeRefused: exitRefused, effect.ProbeUnreachable: exitUnreachable}[remote.Outcome(err)], err
}

func sendReport(ctx context.Context, client *api.Client, o Options, report string) error {
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
	s.Agent = o.Version
	return client.PutStatus(ctx, o.Config.Host, s, true)
}

// proxyVariables say through which proxy, and trusting whom, a program of Go's reaches a
// server.
var proxyVariables = []string{
	"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR",
}
