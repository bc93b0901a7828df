package linux

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ownUnit is the service that this process is, "" if none.
func ownUnit() string {
	if os.Getenv("INVOCATION_ID") == "" {
		return ""
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	return unitOf(string(text))
}

// unitOf finds the service in a process's list of control groups.
func unitOf(cgroups string) string {
	for line := range strings.Lines(cgroups) {
		_, path, ok := strings.Cut(strings.TrimSpace(line), "::") // version 2
		if !ok {
			if _, path, ok = strings.Cut(strings.TrimSpace(line), ":name=systemd:"); !ok {
				continue
			}
		}
		if unit := filepath.Base(path); strings.HasSuffix(unit, ".service") {
			return unit
		}
	}
	return ""
}

// unitFingerprint is of all that a restart would change: unit file, drop-ins,
// files of its environment, configuration. "" means that it is not known.
func (h *Host) unitFingerprint(ctx context.Context) string {
	unit := ownUnit()
	if unit == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, _, err := command(ctx, 1<<16, nil, "systemctl", "show", unit, "--property=FragmentPath,DropInPaths,EnvironmentFiles")
	if err != nil {
		return ""
	}
	return fingerprint(out, h.Config.Path(), os.ReadFile)
}

// fingerprint is of what systemctl show says of a unit. A file that is not there
// now, and without which the unit would not start, makes it unknown.
func fingerprint(show, config string, read func(string) ([]byte, error)) string {
	p := properties(show)
	if p["FragmentPath"] == "" {
		return ""
	}
	names, optional := append([]string{p["FragmentPath"], config}, strings.Fields(p["DropInPaths"])...), make(map[string]bool)
	for line := range strings.Lines(show) { // a line for each
		if file, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "EnvironmentFiles="); ok && file != "" {
			name, ignore, _ := strings.Cut(file, " (ignore_errors=")
			names, optional[name] = append(names, name), ignore == "yes)"
		}
	}
	sum := sha256.New()
	for _, name := range names {
		text, err := read(name)
		switch {
		case err == nil:
			fmt.Fprintf(sum, "%s %d\n%s", name, len(text), text)
		case !optional[name]:
			return ""
		}
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

// UnitChanged tells whether the agent's own unit or configuration is another
// than when it was started.
func (h *Host) UnitChanged(ctx context.Context) bool {
	if h.unit == "" {
		return false
	}
	now := h.unitFingerprint(ctx)
	return now != "" && now != h.unit
}
