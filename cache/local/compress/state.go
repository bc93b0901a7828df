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

// readState reports whether the files in dir are as they were written.
func readState(dir string) (trusted bool, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "state"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	line := strings.TrimSuffix(string(text), "\n")
	return line == stateClean || durable.Boot() != "" && line == stateRunning+durable.Boot(), nil
}

// writeState replaces the state and syncs it: it must not be older than any
// file beside it.
func writeState(dir, state string) error {
	return durable.WriteFile(filepath.Join(dir, "state"), []byte(state+"\n"), 0o644)
}
