package linux_test

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMain removes the program that the tests with real Nix build, and sees to
// it that they make no /nix on a host that had none.
func TestMain(m *testing.M) {
	moreAtOnce()
	_, before := os.Lstat("/nix")
	code := m.Run()
	if builtProgram != "" {
		os.RemoveAll(filepath.Dir(builtProgram)) // a temporary directory
	}
	if _, after := os.Lstat("/nix"); os.IsNotExist(before) && !os.IsNotExist(after) {
		os.Stderr.WriteString("/nix appeared on this host while the tests ran: if nothing else made it, a test did\n") //nolint:errcheck // nothing can be done about it
		if os.Getenv("NARWHARF_CI") == "1" {                                                                           // there nothing else runs
			code = 1
		}
	}
	os.Exit(code)
}
