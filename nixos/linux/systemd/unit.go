package systemd

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"narwharf/nixos/linux/sys"
)

// show asks systemd for properties of a unit.
func show(ctx context.Context, patience time.Duration, unit, properties string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out, _, err := sys.Run(ctx, 1<<16, nil, "systemctl", "show", unit, "--property="+properties)
	return out, err
}

// properties reads the output of systemctl show.
func properties(text string) map[string]string {
	p := make(map[string]string)
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimRight(line, "\n"), "="); ok {
			p[k] = v
		}
	}
	return p
}

// errNoUnit is that this process is no service.
var errNoUnit = errors.New("this process is no service of systemd's")

// showOwn is show of the service that this process is.
func showOwn(ctx context.Context, properties string) (string, error) {
	unit := OwnUnit()
	if unit == "" {
		return "", errNoUnit
	}
	return show(ctx, 10*time.Second, unit, properties)
}

// OwnUnit is the service that this process is, "" if none.
func OwnUnit() string {
	if os.Getenv("INVOCATION_ID") == "" || !isMain(os.Getenv("SYSTEMD_EXEC_PID"), os.Getpid(), os.Getppid()) {
		return ""
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	return unitOf(string(text))
}

// isMain tells whether a process is what a service is for, or what that has started: the script of a
// first boot is within a service of cloud-init's, say, and so far from its main process. Before version
// 248 systemd does not say which that is (systemd.exec(5)).
func isMain(main string, own, parent int) bool {
	return main == "" || main == strconv.Itoa(own) || main == strconv.Itoa(parent)
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

// Fingerprint is of all that a restart of the service that this process is would change:
// unit file, drop-ins, files of its environment, configuration. "" means that it is not
// known.
func Fingerprint(ctx context.Context, config string) string {
	out, err := showOwn(ctx, "FragmentPath,DropInPaths,EnvironmentFiles")
	if err != nil {
		return ""
	}
	return fingerprint(out, config, os.ReadFile)
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
