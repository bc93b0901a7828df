package health

import "golang.org/x/sys/unix"

// kept is what the kernel knows of time synchronisation (adjtimex(2)).
func kept() string {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	switch {
	case err != nil: // not permitted here
		return ""
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		return "; the kernel knows of nothing that keeps it right"
	}
	return ", kept right by time synchronisation"
}
