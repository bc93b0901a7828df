package serverconfig

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// The socket is for everybody on the machine, whatever the umask, and its mode is not set by
// a name that may be a link by then.
func TestSocketIsForAll(t *testing.T) {
	umask := syscall.Umask(0o077)
	defer syscall.Umask(umask)
	dir := t.TempDir()
	name := filepath.Join(dir, "sub", "http.sock")
	l, err := listenUnix(name, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if st, err := os.Lstat(name); err != nil || st.Mode() != os.ModeSocket|0o666 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if now := syscall.Umask(0o077); now != 0o077 {
		t.Errorf("the umask became %o", now)
	}
}
