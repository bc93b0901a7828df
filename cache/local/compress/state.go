package compress

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"narwharf/cache/state/durable"
)

// The file "state" holds one of these. With another boot, or anything else, the
// machine went down, and not all files were looked at since.
const (
	stateClean   = "clean"    // Close synced everything
	stateRunning = "running " // and the boot: a process has the folder, or died with it in this boot
)

// bootID is different in every boot of the kernel. Empty if it is not known,
// which then counts as another boot.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// readState reports whether the files in dir are as they were written.
func readState(dir string) (trusted bool, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "state"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	line := strings.TrimSuffix(string(text), "\n")
	return line == stateClean || bootID() != "" && line == stateRunning+bootID(), nil
}

// writeState replaces the state and syncs it: it must not be older than any
// file beside it.
func writeState(dir, state string) error {
	return durable.WriteFile(filepath.Join(dir, "state"), []byte(state+"\n"), 0o644)
}
