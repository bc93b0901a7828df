package nixos

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
// configuration. "" means that it is not known.
func (h *Linux) unitFingerprint(ctx context.Context) string {
	unit := ownUnit()
	if unit == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, _, err := command(ctx, 1<<16, nil, "systemctl", "show", unit, "--property=FragmentPath,DropInPaths")
	if err != nil {
		return ""
	}
	p := properties(out)
	if p["FragmentPath"] == "" {
		return ""
	}
	sum := sha256.New()
	for _, name := range append([]string{p["FragmentPath"], h.Config.Path()}, strings.Fields(p["DropInPaths"])...) {
		text, err := os.ReadFile(name)
		if err != nil {
			return ""
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(text), text)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

// UnitChanged tells whether the agent's own unit or configuration is another
// than when it was started.
func (h *Linux) UnitChanged(ctx context.Context) bool {
	if h.unit == "" {
		return false
	}
	now := h.unitFingerprint(ctx)
	return now != "" && now != h.unit
}
