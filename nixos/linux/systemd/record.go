package systemd

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"narwharf/cache/state/durable"
	"narwharf/nixos/linux/sys"
)

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

// Record is `narwharf agent record DIR begin|end`, which systemd runs around
// switch-to-configuration.
func Record(dir, what string, env func(string) string) error {
	if !runID.MatchString(filepath.Base(dir)) {
		return fmt.Errorf("%s is not a run's directory", dir)
	}
	boot, err := sys.BootID()
	if err != nil {
		return err
	}
	var name string
	var record any
	switch what {
	case "begin":
		name, record = "begun", begunRecord{boot, env("INVOCATION_ID")}
	case "end":
		name, record = "result", resultRecord{env("SERVICE_RESULT"), env("EXIT_CODE"), env("EXIT_STATUS")}
	default:
		return fmt.Errorf("%q is neither begin nor end", what)
	}
	text, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, name), append(text, '\n'), 0o600)
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
