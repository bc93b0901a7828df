package fleet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Clean takes away every fleet whose reaper is gone, and returns the names of their folders. With
// all set it takes the running ones too.
func Clean(all bool) ([]string, error) {
	dirs, err := filepath.Glob(filepath.Join(cacheDir(), "run", "*"))
	if err != nil {
		return nil, err
	}
	var gone []string
	var errs []error
	for _, dir := range dirs {
		if !all && reaped(dir) {
			continue
		}
		reap := exec.Command("sh", "-c", script("space/reap.sh"), "reap.sh", dir) // standard input is empty: at once
		reap.Stderr = os.Stderr
		if err := reap.Run(); err != nil {
			errs = append(errs, fmt.Errorf("take %s away: %w", dir, err))
			continue
		}
		gone = append(gone, filepath.Base(dir))
	}
	return gone, errors.Join(errs...)
}

// reaped reports whether a fleet has a reaper, which takes it away in time.
func reaped(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, "reaper"))
	if err != nil {
		// Between making the folder and starting the reaper there is a moment; a folder that is empty
		// for a minute has none.
		info, err := os.Stat(dir)
		return err == nil && startedNow(info)
	}
	var pid int
	var start string
	if _, err := fmt.Sscanf(string(text), "%d %s", &pid, &start); err != nil {
		return false
	}
	fields, err := stat(pid)
	return err == nil && fields[19] == start && fields[0] != "Z"
}

func startedNow(info os.FileInfo) bool { return time.Since(info.ModTime()) < time.Minute }
