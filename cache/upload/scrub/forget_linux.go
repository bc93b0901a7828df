package scrub

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// forget has the kernel drop what it holds of a file in memory. It is advice.
func forget(content io.Reader) {
	if f, ok := content.(*os.File); ok {
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
}
