package main

import "syscall"

// ownGroup keeps Ctrl-C from the server, which is ended last, and ends it with this program.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
