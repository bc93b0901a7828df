package fleet

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// previousBuild builds the previous build, or finds it.
var previousBuild = sync.OnceValues(func() (string, error) {
	cmd := exec.Command(filepath.Join(root(), ".ci", "previous"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return strings.TrimSpace(stderr.String()), err
	}
	return strings.TrimSpace(string(out)), nil
})

// PreviousBin is the narwharf that was delivered last (e2e/PREVIOUS). A clone without that commit ends
// the test.
func PreviousBin(t testing.TB) string {
	t.Helper()
	name, err := previousBuild()
	if err != nil {
		lacking(t, "no previous build: %s (%v)", name, err)
	}
	return name
}

// Install copies an executable of this machine to a file of the machine.
func (m Machine) Install(from, to string) {
	m.T.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		m.T.Fatal(err)
	}
	m.WriteFile(to, string(text), 0o755)
}

// AgentOf is [CI.Agent] of another build.
func (c *CI) AgentOf(bin string) string {
	c.T.Helper()
	c.Install(bin, "/fleet/other/narwharf/bin/narwharf")
	return c.Sh("nix-store --add /fleet/other/narwharf")
}

// Use makes the server another build. It has to be stopped.
func (s *Server) Use(bin string) {
	s.T.Helper()
	s.Install(bin, "/usr/local/bin/narwharf")
}
