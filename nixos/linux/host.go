package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"narwharf/cache/state/durable"
	"narwharf/hooks/api"
	"narwharf/nixos"
	"narwharf/nixos/config"
	"narwharf/nixos/journal"
	"narwharf/nixos/linux/join"
	"narwharf/nixos/linux/nix"
	"narwharf/nixos/linux/sys"
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
		Boot:    &boot{profile: system.profile, systems: systems, stateDir: c.StateDir, unit: systemd.OwnUnit(), config: c.Path(), kexec: c.Reboot.Kexec, log: log},
		Runs:    &systemd.Runs{Dir: filepath.Join(c.StateDir, "runs"), RunDir: c.RunDir, Program: program, Timeout: time.Duration(c.Activation.Timeout)},
		Health:  &health{config: c, systems: systems, log: log},
		Network: &network{config: c, systems: systems, client: client, program: program, proxy: systemd.Environment(ctx, proxyVariables)},
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
		Stager: &nixos.Stager{Host: h.Host, StoreDir: c.StoreDir, ContentKeys: c.TrustedContent(), Downloads: c.TrustedDownloads(), Foreign: c.Foreign, MinFree: c.MinFree},
	}
	if c.Metrics.Textfile != "" {
		a.Observe = (&textfile{name: c.Metrics.Textfile, log: h.log}).observe
	}
	return a
}

// Options are of an agent on this machine.
type Options struct {
	Config  *config.Config
	Version string
	Log     *slog.Logger
}

// NewLog writes to an agent's standard error, without the time where that is systemd's
// journal, which has it.
func NewLog(stderr io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey && os.Getenv("JOURNAL_STREAM") != "" {
			return slog.Attr{}
		}
		return a
	}}))
}

// with has a host as long as do takes.
func (o Options) with(ctx context.Context, do func(*Host) error) error {
	client, as, err := join.NewClient(ctx, o.Config, o.Version, o.Log)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	host, err := New(as, client, program, o.Log)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		host.Close(ctx)
	}()
	return do(host)
}

// Run is `narwharf agent run`: it follows the channel until ctx ends, or nixos.ErrRestart.
// While another agent runs here, it waits.
func Run(ctx context.Context, o Options) error {
	return o.with(ctx, func(h *Host) error {
		release, err := awaitAgent(ctx, o.Config.StateDir, o.Log)
		if err != nil {
			return err
		}
		defer release()
		h.sweep()
		return h.Agent(o.Version).Run(ctx, h.unitChanged)
	})
}

// Once is `narwharf agent once`: it does what the channel says now, and says in which state
// the host ended and why. The error is ErrAnotherAgent where an agent runs, and
// nixos.ErrNotSettled or remote.ErrNotJoined where ctx was over before.
func Once(ctx context.Context, o Options) (state api.State, why string, err error) {
	err = o.with(ctx, func(h *Host) error {
		release, err := lockAgent(o.Config.StateDir)
		if err != nil {
			return err
		}
		defer release()
		h.sweep()
		a := h.Agent(o.Version)
		if state, err = a.Once(ctx); err == nil {
			why = a.Journal().Error
		}
		return err
	})
	return state, why, err
}

// DryRun is `narwharf agent once --dry-run`: it says what Once would do. Another agent may
// be running.
func DryRun(ctx context.Context, o Options) (plan *nixos.Plan, err error) {
	err = o.with(ctx, func(h *Host) error {
		plan, err = h.Agent(o.Version).DryRun(ctx)
		return err
	})
	return plan, err
}

// ErrAnotherAgent is that an agent runs with the same state directory.
var ErrAnotherAgent = errors.New("another narwharf agent runs on this state_dir")

// lockAgent keeps other agents off the state directory until it is released.
func lockAgent(stateDir string) (release func(), err error) {
	release, err = sys.Lock(stateDir + "/lock")
	if errors.Is(err, sys.ErrLocked) {
		return nil, fmt.Errorf("%w: %s", ErrAnotherAgent, stateDir)
	}
	return release, err
}

// awaitAgent is lockAgent that waits for an agent that runs. The agent of a first boot, or
// of cron, may be switching to the very system that starts this one, and a unit that fails
// then would count against that system.
func awaitAgent(ctx context.Context, stateDir string, log *slog.Logger) (release func(), err error) {
	if release, err = lockAgent(stateDir); !errors.Is(err, ErrAnotherAgent) {
		return release, err
	}
	log.Info("waiting until another agent has ended", "reason", err)
	release, waited := sys.AwaitLock(ctx, stateDir+"/lock")
	if errors.Is(waited, sys.ErrLocked) {
		return nil, err
	}
	return release, waited
}
