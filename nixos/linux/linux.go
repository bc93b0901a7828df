package linux

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"narwharf/cache/nixstore"
	"narwharf/hooks/api"
	"narwharf/nixos"
	"narwharf/nixos/config"
)

// Host is the nixos.Host that the agent runs on: systemd, Nix and /run. It needs
// root, and nix-store, nix-env, systemctl, systemd-run and journalctl in PATH.
type Host struct {
	Config *config.Config
	Client *api.Client
	Log    *slog.Logger
	// Program is this program, which records how runs end; os.Executable
	// unless a test says otherwise.
	Program string

	mu       sync.Mutex
	store    *nixstore.Store
	holder   func() // ends the process that holds the database open
	reporter *reporter
	unit     string            // fingerprint of the own unit at the start
	wayOut   map[string]string // what that unit set at the start
}

var _ nixos.Host = (*Host)(nil)

// New makes the directories that the agent needs.
func New(c *config.Config, client *api.Client, log *slog.Logger) (*Host, error) {
	for _, d := range []string{c.StateDir, filepath.Join(c.StateDir, "runs"), filepath.Join(c.StateDir, "gcroots")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	h := &Host{Config: c, Client: client, Log: log, Program: program, reporter: newReporter(client, c.Host, log)}
	h.unit, h.wayOut = h.unitFingerprint(context.Background()), unitWayOut(context.Background())
	return h, nil
}

// ErrAnotherAgent is that an agent runs with the same state directory.
var ErrAnotherAgent = errors.New("another narwharf agent runs on this state_dir")

// Lock keeps other agents off the state directory until it is released.
func (h *Host) Lock() (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(h.Config.StateDir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s", ErrAnotherAgent, h.Config.StateDir)
	}
	return func() { f.Close() }, nil
}

// Close ends what runs in the background, after one more try to deliver the
// last report.
func (h *Host) Close(ctx context.Context) {
	h.reporter.close(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.holder != nil {
		h.holder()
	}
	if h.store != nil {
		h.store.Close() // it was only read
	}
}

// Facts implements System.
func (h *Host) Facts(context.Context) (nixos.Facts, error) {
	c := h.Config
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nixos.Facts{}, err
	}
	f := nixos.Facts{BootID: strings.TrimSpace(string(boot)), Now: bootClock(), Wall: time.Now()}
	if f.Current, err = h.systemLink(filepath.Join(c.RunDir, "current-system")); err != nil {
		return f, err
	}
	if f.Booted, err = h.systemLink(filepath.Join(c.RunDir, "booted-system")); err != nil {
		return f, err
	}
	if err := h.profileFacts(&f); err != nil {
		return f, err
	}
	if st, err := os.Lstat(filepath.Join(c.RunDir, "current-system")); err == nil {
		f.CurrentAge = max(int64(f.Wall.Sub(st.ModTime())/time.Second), 0)
	}
	if f.Booted != "" && f.Current != "" && f.Booted != f.Current {
		f.NeedReboot = h.differences(f.Booted, f.Current)
	}
	if f.Pause, err = ReadPause(c.StateDir, f.Wall); err != nil {
		return f, err
	}
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return f, err
	}
	f.Random = hex.EncodeToString(random[:])
	return f, nil
}

// systemLink reads a link to a system. None is "", which a container or an
// installer has.
func (h *Host) systemLink(name string) (string, error) {
	path, err := os.Readlink(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case !strings.HasPrefix(path, h.Config.StoreDir+"/"):
		if path, err = filepath.EvalSymlinks(name); err != nil {
			return "", err
		}
	}
	return path, nil
}

// Sleep implements System.
func (h *Host) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rebootPatience is how long a host may take to go down.
const rebootPatience = 10 * time.Minute

// Reboot implements System. The agent's end comes with the host's.
func (h *Host) Reboot(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, _, err := command(asking, 4096, nil, "systemctl", "reboot"); err != nil {
		return err
	}
	if err := h.Sleep(ctx, rebootPatience); err != nil {
		return err
	}
	return fmt.Errorf("systemctl reboot did not end this boot in %s", rebootPatience)
}

// Sync implements System.
func (h *Host) Sync(context.Context) error {
	for _, d := range []string{h.real(h.Config.StoreDir), h.Config.StateDir, filepath.Dir(h.Config.Profile), "/boot", "/efi", "/boot/efi"} {
		if _, err := os.Stat(d); err != nil {
			continue
		}
		if err := syncFS(d); err != nil {
			return fmt.Errorf("sync %s: %w", d, err)
		}
	}
	return nil
}

// BootRoom implements System.
func (h *Host) BootRoom(context.Context) error {
	for _, d := range []string{"/boot", "/efi", "/boot/efi"} {
		own, err := ownFileSystem(d)
		if err != nil || !own { // the root's room is min_free's business
			continue
		}
		if free, err := freeBytes(d); err == nil && free == 0 {
			return fmt.Errorf("a full %s", d)
		}
	}
	return nil
}

// real is where a store path's files are.
func (h *Host) real(path string) string { return h.Config.StoreRoot + path }

func pauseFile(stateDir string) string { return filepath.Join(stateDir, "pause.json") }

// ReadPause is what a person on the host has said, nil if nothing that still
// holds.
func ReadPause(stateDir string, now time.Time) (*api.Hold, error) {
	text, err := os.ReadFile(pauseFile(stateDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p := new(api.Hold)
	if err := json.Unmarshal(text, p); err != nil {
		return &api.Hold{Reason: "pause.json cannot be read: " + err.Error(), By: "?"}, nil
	}
	if p.Until != nil && !now.Before(*p.Until) {
		return nil, nil
	}
	return p, nil
}

// WritePause pauses the host, or with nil lets it go on.
func WritePause(stateDir string, p *api.Hold) error {
	if p == nil {
		err := os.Remove(pauseFile(stateDir))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return nixos.WriteDurably(pauseFile(stateDir), append(text, '\n'), 0o644)
}
