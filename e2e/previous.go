package e2e

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"narwharf/e2e/repository"
)

// previousBuild builds the previous build, or finds it.
var previousBuild = sync.OnceValues(func() (string, error) {
	cmd := exec.Command(filepath.Join(repository.Root, ".ci", "previous"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return strings.TrimSpace(stderr.String()), err
	}
	return strings.TrimSpace(string(out)), nil
})

// PreviousBin is the binary that was delivered last (e2e/PREVIOUS), with which this one has to get
// along. A clone without that commit ends the test.
func PreviousBin(t testing.TB) string {
	t.Helper()
	name, err := previousBuild()
	if err != nil {
		lacking(t, "no previous build: %s (%v)", name, err)
	}
	return name
}

// Use makes the server run another build from its next start on, commands included.
func (s *Server) Use(bin string) {
	s.bin = bin
	s.WriteConfig()
}
