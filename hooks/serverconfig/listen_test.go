package serverconfig

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
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

// What systemd listens on already is taken, however its address is written, and what listen does not
// name is closed.
func TestInherited(t *testing.T) {
	listen := func(network, address string) net.Listener {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	all, one, other := listen("tcp", ":0"), listen("tcp", "127.0.0.1:0"), listen("tcp", "127.0.0.1:0")
	socket := listen("unix", filepath.Join(t.TempDir(), "s"))
	_, port, _ := net.SplitHostPort(all.Addr().String())
	c := Default()
	c.Listen = []string{"unix:" + socket.Addr().String(), "0.0.0.0:" + port, one.Addr().String(), "127.0.0.1:0"}
	var log bytes.Buffer
	listeners, err := c.OpenListeners([]net.Listener{all, one, other, socket}, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil || len(listeners) != 4 || listeners[0] != socket || listeners[1] != all || listeners[2] != one {
		t.Fatal(listeners, err)
	}
	listeners[3].Close()
	if _, err := other.Accept(); err == nil || !strings.Contains(log.String(), "address="+other.Addr().String()) {
		t.Errorf("the address that listen does not name is open: %v, %s", err, log.String())
	}
	if _, err := net.Dial("tcp", one.Addr().String()); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		a, b string
		same bool
	}{{":80", "[::]:80", true}, {"0.0.0.0:80", "[::]:80", true}, {":80", ":81", false}, {"127.0.0.1:80", "[::1]:80", false}, {"localhost:80", "127.0.0.1:80", false}, {"[::1]:80", "[0:0::1]:80", true}} {
		if samePlace(c.a, c.b) != c.same {
			t.Errorf("%v", c)
		}
	}
}
