package e2e

import "syscall"

// ownGroup makes a child leader of a process group, so that it can be ended with all it started,
// and ends it when the test binary dies, so that a killed test leaves no server behind.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
