package e2e

import (
	"fmt"
	"os"
	"testing"
)

// TestMain sees to it that no test makes /nix on a host that had none.
func TestMain(m *testing.M) {
	_, before := os.Lstat("/nix")
	code := m.Run()
	if _, after := os.Lstat("/nix"); os.IsNotExist(before) && !os.IsNotExist(after) {
		fmt.Fprintln(os.Stderr, "a test made /nix on this host")
		code = 1
	}
	os.Exit(code)
}
