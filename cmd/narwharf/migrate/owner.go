package migrate

import (
	"io/fs"
	"syscall"
)

// owner is the user who has a file, -1 if nobody knows.
func owner(st fs.FileInfo) int {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return int(sys.Uid)
	}
	return -1
}
