package fleet

import "os"

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
