package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"narwharf/cache/state/durable"
	"narwharf/nixos"
	"narwharf/nixos/journal"
	"narwharf/nixos/linux/sys"
)

// switchUnit is the name that nixos-rebuild gives its own run of
// switch-to-configuration (nixpkgs, pkgs/by-name/ni/nixos-rebuild-ng). Two
// units of a name cannot be, so people and the agent keep out of each other's
// way.
const switchUnit = "nixos-rebuild-switch-to-configuration.service"

// Runs are of switch-to-configuration as a transient unit, which goes on where the
// agent ends.
type Runs struct {
	Dir     string        // of the records, one folder for each run
	RunDir  string        // /run
	Program string        // narwharf, which records how runs end
	Timeout time.Duration // of one run
}

func (s *Runs) dir(id string) string { return filepath.Join(s.Dir, id) }

// switchState is what systemd knows of the unit now.
func switchState(ctx context.Context) (active bool, description string, err error) {
	out, err := show(ctx, 30*time.Second, switchUnit, "ActiveState,Description")
	if err != nil {
		return false, "", err
	}
	p := properties(out)
	if p["ActiveState"] == "" {
		return false, "", errors.New("systemctl show has no ActiveState")
	}
	return slices.Contains([]string{"active", "activating", "deactivating", "reloading"}, p["ActiveState"]), p["Description"], nil
}

// endPatience is how long a unit may take to end once it has nothing to do: its
// TimeoutStopSec, and some.
const endPatience = 70 * time.Second

// recorded tells whether a unit is of a run of the agent's that has its result.
func (s *Runs) recorded(description string) bool {
	id, ours := strings.CutPrefix(description, "narwharf ")
	if !ours || !runID.MatchString(id) {
		return false
	}
	var result resultRecord
	ended, err := readRecord(filepath.Join(s.dir(id), "result"), &result)
	return ended && err == nil
}

// Busy implements nixos.Runs.
func (s *Runs) Busy(ctx context.Context) (string, error) {
	active, description, err := switchState(ctx)
	// A run of ours that has its result is over for the agent, and its unit is not
	// until the program that wrote the result has ended.
	for end := time.Now().Add(endPatience); err == nil && active && s.recorded(description) && time.Now().Before(end); {
		if err := sys.Sleep(ctx, 50*time.Millisecond); err != nil {
			return "", err
		}
		active, description, err = switchState(ctx)
	}
	switch {
	case err != nil:
		return "", err
	case active:
		return fmt.Sprintf("%s runs (%s)", switchUnit, description), nil
	}
	lock := filepath.Join(s.RunDir, "nixos", "switch-to-configuration.lock")
	f, err := os.Open(lock)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return "somebody else runs switch-to-configuration: " + lock + " is locked", nil
	}
	return "", nil
}

// args is the command line of systemd-run for a run.
func (s *Runs) args(r journal.Run) []string {
	dir := s.dir(r.ID)
	args := []string{
		"--unit=" + switchUnit, "--description=narwharf " + r.ID, "--collect", "--no-ask-password", "--quiet", "--service-type=exec",
		"--property=ExecStartPre=" + s.Program + " agent record " + dir + " begin",
		"--property=ExecStopPost=" + s.Program + " agent record " + dir + " end",
		"--property=RuntimeMaxSec=" + strconv.Itoa(int(s.Timeout/time.Second)),
		"--property=TimeoutStopSec=60",
		// Else journald drops what comes after ten thousand lines, and with it that the
		// activation script failed (LogRateLimitIntervalSec= in systemd.exec(5)).
		"--property=LogRateLimitIntervalSec=0",
	}
	for _, name := range []string{"LOCALE_ARCHIVE", "NIXOS_INSTALL_BOOTLOADER", "NIXOS_NO_CHECK"} {
		if v, ok := os.LookupEnv(name); ok {
			args = append(args, "--setenv="+name+"="+v)
		}
	}
	return append(args, "--", filepath.Join(r.Path, "bin", "switch-to-configuration"), r.Action)
}

// StartRun implements nixos.Runs.
func (s *Runs) StartRun(ctx context.Context, r journal.Run) error {
	if !runID.MatchString(r.ID) {
		return fmt.Errorf("%q is no run's ID", r.ID)
	}
	s.forget(r.ID)
	dir := s.dir(r.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// A record that could not be begun left an end behind.
	if err := os.Remove(filepath.Join(dir, "result")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := durable.SyncDir(filepath.Dir(dir)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	_, _, err := sys.Run(ctx, 4096, nil, "systemd-run", s.args(r)...)
	return err
}

// RunState implements nixos.Runs.
func (s *Runs) RunState(ctx context.Context, r journal.Run) (nixos.RunState, error) {
	dir := s.dir(r.ID)
	var st nixos.RunState
	var begun begunRecord
	var result resultRecord
	var err error
	if st.Begun, err = readRecord(filepath.Join(dir, "begun"), &begun); err != nil {
		return st, err
	}
	// systemd is asked before the result is looked for: it may end in between.
	active, description, unitErr := switchState(ctx)
	if st.Ended, err = readRecord(filepath.Join(dir, "result"), &result); err != nil {
		return st, err
	}
	if st.Ended && st.Begun {
		st.Exit, st.Text = outcome(result)
		return st, nil
	}
	st.Ended = false
	if unitErr != nil {
		return st, unitErr
	}
	st.Active = active && description == "narwharf "+r.ID
	return st, nil
}

// forget removes records of attempts but the newest ten runs.
func (s *Runs) forget(except string) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil || len(entries) < 20 {
		return
	}
	for _, e := range entries[:len(entries)-10] { // IDs begin with the time
		if e.Name() != except && runID.MatchString(e.Name()) {
			os.RemoveAll(s.dir(e.Name())) //nolint:errcheck // they only take room
		}
	}
}

// journal reads lines of the unit that a run was, "" if they are not known.
func (s *Runs) journal(ctx context.Context, r journal.Run, patience time.Duration, limit int, options ...string) (string, error) {
	var begun begunRecord
	if ok, err := readRecord(filepath.Join(s.dir(r.ID), "begun"), &begun); !ok || err != nil || begun.Invocation == "" {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	args := append([]string{"--no-pager", "--quiet"}, append(options, "_SYSTEMD_INVOCATION_ID="+begun.Invocation)...)
	out, _, err := sys.Run(ctx, limit, nil, "journalctl", args...)
	return out, err
}

// RunLog implements nixos.Runs.
func (s *Runs) RunLog(ctx context.Context, r journal.Run, limit int) (string, error) {
	return s.journal(ctx, r, time.Minute, limit, "--output=short-iso")
}

// LastLines implements nixos.Runs: at most five, without those of systemd and of the
// records around the run.
func (s *Runs) LastLines(ctx context.Context, r journal.Run) string {
	out, err := s.journal(ctx, r, 10*time.Second, 2000, "--output=cat", "--lines=5")
	if err != nil {
		return ""
	}
	return strings.Join(strings.FieldsFunc(out, func(c rune) bool { return c == '\n' }), "; ")
}
