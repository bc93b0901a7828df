package fleet

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"narwharf/e2e/repository"
)

// need ends the test unless hosts are wanted (NARWHARF_FLEET=1) and this machine can boot them.
func need(t testing.TB) {
	t.Helper()
	if os.Getenv("NARWHARF_FLEET") != "1" {
		t.Skip("boots hosts: runs with NARWHARF_FLEET=1")
	}
	if runtime.GOOS != "linux" {
		lacking(t, "hosts need Linux")
	}
	if os.Getuid() != 0 {
		lacking(t, "hosts are booted by root: run as root, for instance in a container that may mount")
	}
	if _, err := exec.LookPath("dpkg"); err != nil {
		lacking(t, "hosts are made of Debian's packages, and this machine has no dpkg")
	}
}

// lacking ends the test because this machine lacks something: skipped on a laptop, failed in CI.
func lacking(t testing.TB, format string, args ...any) {
	t.Helper()
	reason := fmt.Sprintf(format, args...)
	if os.Getenv("NARWHARF_CI") == "1" {
		t.Fatalf("missing, and NARWHARF_CI=1: %s", reason)
	}
	t.Skip(reason)
}

// onlyLong skips a test in -short mode (`make e2e-smoke`), where TestDeploy alone boots hosts.
func onlyLong(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("slow: runs without -short")
	}
}

// cacheDir is where base trees and running fleets lie.
func cacheDir() string {
	if dir := os.Getenv("NARWHARF_FLEET_DIR"); dir != "" {
		return dir
	}
	return filepath.Join(repository.Root, ".cache", "fleet")
}

// binary is the narwharf under test. It has to run on the base tree: one that wants a newer libc
// than Debian 12's (a build with -race) gives way to bin/narwharf, which wants none.
func binary(t testing.TB, base string) string {
	t.Helper()
	plain := filepath.Join(repository.Root, "bin", "narwharf")
	name := os.Getenv("NARWHARF_BIN")
	if name == "" {
		name = plain
	}
	name, err := filepath.Abs(name)
	if err == nil {
		_, err = os.Stat(name)
	}
	if err != nil {
		lacking(t, "no binary %s; run make build or set NARWHARF_BIN", name)
	}
	const try = `mount --bind "$1" "$2/mnt"; exec chroot "$2" "/mnt/$3" version`
	out, err := execute([]string{"unshare", "--mount", "--propagation", "private", "sh", "-euc", try, "sh", filepath.Dir(name), base, filepath.Base(name)}, "", 0)
	if err != nil {
		lacking(t, "%v", err)
	}
	if out.Code == 0 {
		return name
	}
	if _, err := os.Stat(plain); err != nil || name == plain {
		t.Fatalf("%s does not run on Debian 12; build it with CGO_ENABLED=0: %v", name, out)
	}
	t.Logf("hosts run %s, since %s does not run on Debian 12: %s", plain, name, strings.TrimSpace(out.Stderr))
	return plain
}

// nixTree is the folder of a suite that e2e/nix-clients.sh unpacked.
func nixTree(t testing.TB, suite string) string {
	t.Helper()
	dir := os.Getenv("NARWHARF_NIX_DIR")
	if dir == "" {
		dir = filepath.Join(repository.Root, ".cache", "nix")
	}
	tree, err := filepath.Abs(filepath.Join(dir, suite))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(tree, "stamp")); err != nil {
		lacking(t, "no Nix of Debian %s in %s; run e2e/nix-clients.sh", suite, dir)
	}
	return tree
}

// Base is the base tree, made by base.sh if it is not there yet (about a minute).
func Base() (string, error) {
	cmd := exec.Command(filepath.Join(repository.Root, "e2e", "fleet", "base.sh"), cacheDir())
	var stdout strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, os.Stderr
	cmd.Dir = repository.Root
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("make the base tree: %w", err)
	}
	return strings.TrimSpace(stdout.String()), nil
}
