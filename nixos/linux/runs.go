package linux

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"narwharf/nixos"
)

// switchUnit is the name that nixos-rebuild gives its own run of
// switch-to-configuration (nixpkgs, pkgs/by-name/ni/nixos-rebuild-ng). Two
// units of a name cannot be, so people and the agent keep out of each other's
// way.
const switchUnit = "nixos-rebuild-switch-to-configuration.service"

// What is recorded of a run, in runs/<id>/: "begun" by ExecStartPre before
// switch-to-configuration starts, "result" by ExecStopPost after it ended. Both
// are there whatever became of the agent, and outlive the boot.
type (
	begunRecord struct {
		BootID     string `json:"boot_id"`
		Invocation string `json:"invocation"` // of the unit; its lines in the journal
	}
	resultRecord struct {
		Result string `json:"result"`      // $SERVICE_RESULT: success, exit-code, timeout, signal, …
		Code   string `json:"exit_code"`   // $EXIT_CODE: exited, killed, dumped
		Status string `json:"exit_status"` // $EXIT_STATUS: a number, or a signal's name
	}
)

var runID = regexp.MustCompile(`^[a-z0-9]+-[0-9]+-[a-z-]+$`)

func (h *Host) runDir(id string) string { return filepath.Join(h.Config.StateDir, "runs", id) }

// Record is `narwharf agent record DIR begin|end`, which systemd runs around
// switch-to-configuration.
func Record(dir, what string, env func(string) string) error {
	if !runID.MatchString(filepath.Base(dir)) {
		return fmt.Errorf("%s is not a run's directory", dir)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	var name string
	var record any
	switch what {
	case "begin":
		name, record = "begun", begunRecord{strings.TrimSpace(string(boot)), env("INVOCATION_ID")}
	case "end":
		name, record = "result", resultRecord{env("SERVICE_RESULT"), env("EXIT_CODE"), env("EXIT_STATUS")}
	default:
		return fmt.Errorf("%q is neither begin nor end", what)
	}
	text, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return nixos.WriteDurably(filepath.Join(dir, name), append(text, '\n'), 0o600)
}

// readRecord tells whether there is a record; one that cannot be read is none.
func readRecord(name string, record any) (bool, error) {
	text, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return json.Unmarshal(text, record) == nil, nil
}

// unitState is what systemd knows of the unit now.
type unitState struct {
	active      bool
	invocation  string
	description string
}

func (h *Host) unitState(ctx context.Context) (unitState, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, _, err := command(ctx, 1<<16, nil, "systemctl", "show", switchUnit, "--property=ActiveState,InvocationID,Description")
	if err != nil {
		return unitState{}, err
	}
	p := properties(out)
	u := unitState{invocation: p["InvocationID"], description: p["Description"]}
	switch p["ActiveState"] {
	case "active", "activating", "deactivating", "reloading":
		u.active = true
	case "":
		return u, errors.New("systemctl show has no ActiveState")
	}
	return u, nil
}

// endPatience is how long a unit may take to end once it has nothing to do: its
// TimeoutStopSec, and some.
const endPatience = 70 * time.Second

// recorded tells whether a unit is that of a run of ours which has its result.
func (h *Host) recorded(description string) bool {
	id, ours := strings.CutPrefix(description, "narwharf ")
	if !ours || !runID.MatchString(id) {
		return false
	}
	var result resultRecord
	ended, err := readRecord(filepath.Join(h.runDir(id), "result"), &result)
	return ended && err == nil
}

// Busy implements Units.
func (h *Host) Busy(ctx context.Context) (string, error) {
	u, err := h.unitState(ctx)
	// A run of ours that has its result is over for the agent, and its unit is not
	// until the program that wrote the result has ended.
	for end := time.Now().Add(endPatience); err == nil && u.active && h.recorded(u.description) && time.Now().Before(end); {
		if err := h.Sleep(ctx, 50*time.Millisecond); err != nil {
			return "", err
		}
		u, err = h.unitState(ctx)
	}
	if err != nil {
		return "", err
	}
	if u.active {
		return fmt.Sprintf("%s runs (%s)", switchUnit, u.description), nil
	}
	lock := filepath.Join(h.Config.RunDir, "nixos", "switch-to-configuration.lock")
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

// runArgs is the command line of systemd-run for a run.
func (h *Host) runArgs(r nixos.Run) []string {
	dir := h.runDir(r.ID)
	args := []string{
		"--unit=" + switchUnit, "--description=narwharf " + r.ID, "--collect", "--no-ask-password", "--quiet", "--service-type=exec",
		"--property=ExecStartPre=" + h.Program + " agent record " + dir + " begin",
		"--property=ExecStopPost=" + h.Program + " agent record " + dir + " end",
		"--property=RuntimeMaxSec=" + strconv.Itoa(int(time.Duration(h.Config.Activation.Timeout)/time.Second)),
		"--property=TimeoutStopSec=60",
	}
	for _, name := range []string{"LOCALE_ARCHIVE", "NIXOS_INSTALL_BOOTLOADER", "NIXOS_NO_CHECK"} {
		if v, ok := os.LookupEnv(name); ok {
			args = append(args, "--setenv="+name+"="+v)
		}
	}
	return append(args, "--", filepath.Join(r.Path, "bin", "switch-to-configuration"), r.Action)
}

// StartRun implements Units.
func (h *Host) StartRun(ctx context.Context, r nixos.Run) error {
	if !runID.MatchString(r.ID) {
		return fmt.Errorf("%q is no run's ID", r.ID)
	}
	h.forgetRuns(r.ID)
	dir := h.runDir(r.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// A record that could not be begun left an end behind.
	if err := os.Remove(filepath.Join(dir, "result")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := nixos.SyncDir(filepath.Dir(dir)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	_, _, err := command(ctx, 4096, nil, "systemd-run", h.runArgs(r)...)
	return err
}

// RunState implements Units.
func (h *Host) RunState(ctx context.Context, r nixos.Run) (nixos.RunState, error) {
	dir := h.runDir(r.ID)
	var st nixos.RunState
	var begun begunRecord
	var result resultRecord
	var err error
	if st.Begun, err = readRecord(filepath.Join(dir, "begun"), &begun); err != nil {
		return st, err
	}
	// systemd is asked before the result is looked for: it may end in between.
	u, unitErr := h.unitState(ctx)
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
	st.Active = u.active && u.description == "narwharf "+r.ID
	return st, nil
}

// outcome is a run's exit status, or what ended it otherwise.
func outcome(r resultRecord) (exit int, text string) {
	if r.Code == "exited" {
		if n, err := strconv.Atoi(r.Status); err == nil && (r.Result == "success" || r.Result == "exit-code") {
			return n, ""
		}
	}
	switch r.Result {
	case "timeout":
		return -1, "the time limit"
	case "signal", "core-dump":
		return -1, "signal " + r.Status
	}
	return -1, strings.TrimSpace(r.Result + " " + r.Code + " " + r.Status)
}

// forgetRuns removes records of attempts but the newest ten runs.
func (h *Host) forgetRuns(except string) {
	entries, err := os.ReadDir(filepath.Join(h.Config.StateDir, "runs"))
	if err != nil || len(entries) < 20 {
		return
	}
	for _, e := range entries[:len(entries)-10] { // IDs begin with the time
		if e.Name() != except && runID.MatchString(e.Name()) {
			os.RemoveAll(h.runDir(e.Name())) //nolint:errcheck // they only take room
		}
	}
}

// runLog is what a run wrote, at most limit bytes of it.
func (h *Host) runLog(ctx context.Context, r nixos.Run, limit int) (string, error) {
	var begun begunRecord
	if ok, err := readRecord(filepath.Join(h.runDir(r.ID), "begun"), &begun); !ok || err != nil || begun.Invocation == "" {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, _, err := command(ctx, limit, nil, "journalctl", "--no-pager", "--quiet", "--output=short-iso", "_SYSTEMD_INVOCATION_ID="+begun.Invocation)
	return out, err
}

// wordsOfRun is how many lines of a run's output count as its last words.
const wordsOfRun = 5

// RunWords implements Units.
func (h *Host) RunWords(ctx context.Context, r nixos.Run) string {
	var begun begunRecord
	if ok, err := readRecord(filepath.Join(h.runDir(r.ID), "begun"), &begun); !ok || err != nil || begun.Invocation == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	// Without the lines of systemd and of the records around it.
	out, _, err := command(ctx, 2000, nil, "journalctl", "--no-pager", "--quiet", "--output=cat", "--lines="+strconv.Itoa(wordsOfRun),
		"_SYSTEMD_INVOCATION_ID="+begun.Invocation)
	if err != nil {
		return ""
	}
	return strings.Join(strings.FieldsFunc(out, func(c rune) bool { return c == '\n' }), "; ")
}
