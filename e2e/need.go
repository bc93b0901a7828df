package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"narwharf/e2e/repository"
)

// inCI reports whether a missing requirement is a failure (NARWHARF_CI=1) and not a skip.
func inCI() bool { return os.Getenv("NARWHARF_CI") == "1" }

// FastPathOff reports whether servers are to run with limits.fast_path = false.
func FastPathOff() bool { return os.Getenv("NARWHARF_FAST_PATH") == "false" }

// lacking ends the test because this machine lacks something: skipped on a laptop, failed in CI.
// The reason names what is missing and what brings it.
func lacking(t testing.TB, format string, args ...any) {
	t.Helper()
	reason := fmt.Sprintf(format, args...)
	if inCI() {
		t.Fatalf("missing, and NARWHARF_CI=1: %s", reason)
	}
	t.Skip(reason)
}

// onlyLong skips a slow test in -short mode. It is a choice of the caller, so no failure in CI.
func onlyLong(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("slow: runs without -short")
	}
}

// needTool ends the test unless a program is in PATH.
func needTool(t testing.TB, name, debianPackage string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		lacking(t, "no program %s; as root: apt-get install %s", name, debianPackage)
	}
}

// narwharfBin is the binary under test: NARWHARF_BIN, else bin/narwharf as `make build` leaves it.
func narwharfBin(t testing.TB) string {
	t.Helper()
	name := os.Getenv("NARWHARF_BIN")
	if name == "" {
		name = filepath.Join(repository.Root, "bin", "narwharf")
	}
	if _, err := os.Stat(name); err != nil {
		lacking(t, "no binary %s; run make build or set NARWHARF_BIN", name)
	}
	return name
}

// canNamespace says whether this user can make a mount namespace, and with which arguments of
// unshare(1) it does.
var canNamespace = sync.OnceValues(func() ([]string, error) {
	args := []string{"--mount", "--propagation", "private"}
	if os.Getuid() != 0 {
		args = append([]string{"--user", "--map-root-user"}, args...)
	}
	if out, err := exec.Command("unshare", append(args, "true")...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("no mount namespace for this user (run as root or allow user namespaces): %w: %s", err, out)
	}
	return args, nil
})

func needNamespace(t testing.TB) []string {
	t.Helper()
	needTool(t, "unshare", "util-linux")
	args, err := canNamespace()
	if err != nil {
		lacking(t, "%v", err)
	}
	return args
}
