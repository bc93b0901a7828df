package fleet

import "testing"

// What a package needs that boots a host of a fleet in another way, as package vm does.

// Command is a command line that runs args inside the fleet, with the files of this machine and the
// network of one of the fleet's machines. What it starts ends with the fleet.
func (f *Fleet) Command(network string, args ...string) []string {
	return f.space.argv(network, args...)
}

// Dir is the host's folder on this machine, which goes with the fleet. Its "root" is the host's /,
// to be seen inside the fleet alone ([Fleet.Command]).
func (h *Host) Dir() string { return h.m.dir() }

// Over is the host with another way in: argv puts a command line into it, or says why nothing can be
// run on it now. The verbs that need no way in (Boot, PowerCut, …) are not changed by it.
func (h *Host) Over(argv func(args ...string) ([]string, error)) *Host {
	return &Host{Machine: Machine{T: h.T, m: h.m, argv: argv}, h: h.h}
}

// Lacking ends the test because this machine lacks something: skipped on a laptop, failed in CI.
func Lacking(t testing.TB, format string, args ...any) {
	t.Helper()
	lacking(t, format, args...)
}
