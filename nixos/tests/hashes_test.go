package tests

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// expressions are the files from which golden/ is made, by their names from the root of the repository.
func expressions(t *testing.T) (names []string) {
	t.Helper()
	look := func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(name, ".nix") {
			name, err = filepath.Rel(root, name)
			names = append(names, name)
		}
		return err
	}
	for _, dir := range []string{"nixos/modules", "nixos/tests", "nixos/templates", "docs/examples"} {
		if err := filepath.WalkDir(filepath.Join(root, dir), look); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"flake.nix", "nixos/package.nix", "nixos/lib.nix"} {
		if _, err := os.Stat(filepath.Join(root, name)); err == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// hashes are a line for each of the files. The hash of what make vendor-hash writes counts for nothing.
func hashes(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, name := range expressions(t) {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		lines := slices.DeleteFunc(strings.SplitAfter(string(text), "\n"), func(line string) bool { return strings.Contains(line, "vendorHash = ") })
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256([]byte(strings.Join(lines, ""))), name)
	}
	return b.String()
}

func writeHashes(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(golden, "hashes.txt"), []byte(hashes(t)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// golden/ is of the expressions as they are.
func TestStale(t *testing.T) {
	is, err := os.ReadFile(filepath.Join(golden, "hashes.txt"))
	if err != nil {
		t.Fatal(err)
	}
	then, now := strings.SplitAfter(string(is), "\n"), strings.SplitAfter(hashes(t), "\n")
	for _, line := range now {
		if !slices.Contains(then, line) {
			t.Errorf("golden/ was made before this file was changed: make nixos-eval NIXPKGS=DIR\n    %s", line)
		}
	}
	for _, line := range then {
		if !slices.Contains(now, line) {
			t.Errorf("golden/ was made of a file as it is no more: make nixos-eval NIXPKGS=DIR\n    %s", line)
		}
	}
}

// Every Nix can read every expression.
func TestParse(t *testing.T) {
	names := expressions(t)
	for i, name := range names {
		names[i] = filepath.Join(root, name)
	}
	for _, version := range nixVersions(t) {
		c := exec.Command(filepath.Join(nixDir(), version, "bin", "nix-instantiate"), append([]string{"--store", "dummy://", "--parse"}, names...)...)
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("Nix %s: %v\n%s", version, err, out)
		}
	}
}
