package linux_test

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMain removes the program that the tests with real Nix build, and sees to
// it that they make no /nix on a host that had none.
func TestMain(m *testing.M) {
	_, before := os.Lstat("/nix")
	code := m.Run()
	if builtProgram != "" {
		os.RemoveAll(filepath.Dir(builtProgram)) // a temporary directory
	}
	if _, after := os.Lstat("/nix"); os.IsNotExist(before) && !os.IsNotExist(after) {
		os.Stderr.WriteString("a test made /nix on this host\n") //nolint:errcheck // it fails anyway
		code = 1
	}
	os.Exit(code)
}
