package ahead

import "golang.org/x/sys/unix"

// lowerPriority makes the calling thread the last that gets a processor. It is for good: only root may take it back.
func lowerPriority() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, 19) }
