package doctor

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	gib = 1 << 30
	mib = 1 << 20
)

// Disk looks how much room is left where a folder lies: least bytes have to be free, and three times that should be.
func (r *Report) Disk(check, dir string, least int64) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		r.Fault(check, []string{"ls -ld " + dir}, "%s: %v", dir, err)
		return
	}
	free := int64(st.Bavail) * int64(st.Bsize)
	text := fmt.Sprintf("%s has %.1f GiB left", dir, float64(free)/gib)
	fix := []string{"df -h " + dir}
	switch {
	case free < least:
		r.Fault(check, fix, "%s, and needs %.1f", text, float64(least)/gib)
	case free < 3*least:
		r.Warn(check, fix, "%s", text)
	case st.Files > 0 && st.Ffree < st.Files/100:
		r.Warn(check, []string{"df -i " + dir}, "%s has room for %d files only", dir, st.Ffree)
	default:
		r.OK(check, "%s", text)
	}
}

// LeastFree is what has to be free where uploads or systems are unpacked.
const LeastFree = 512 * mib
