package systemd

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// manager is a socket on which systemd would listen.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	name := filepath.Join(dir, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return conn
}

func hear(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	buf := make([]byte, 1000)
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestTend(t *testing.T) {
	conn := manager(t)
	t.Setenv("WATCHDOG_USEC", "3000")
	ctx, cancel := context.WithCancel(t.Context())
	ill := make(chan error, 3)
	ill <- nil
	ill <- errors.New("the state does not answer")
	done := make(chan struct{})
	go func() {
		defer close(done)
		Tend(ctx, func() int64 { return 2 }, func() error {
			select {
			case err := <-ill:
				return err
			default:
				return nil
			}
		})
	}()
	for _, want := range []string{"WATCHDOG=1\nSTATUS=serving, 2 uploads under way", "STATUS=not well: the state does not answer", "WATCHDOG=1\nSTATUS=serving, 2 uploads under way"} {
		if said := hear(t, conn); said != want {
			t.Errorf("it says %q, and not %q", said, want)
		}
	}
	cancel()
	<-done
}

func TestReload(t *testing.T) {
	conn := manager(t)
	Reload(func() { Notify("STATUS=within") })
	for _, want := range []string{"RELOADING=1", "STATUS=within", "READY=1"} {
		if said := hear(t, conn); !strings.HasPrefix(said, want) {
			t.Errorf("it says %q, and not %q", said, want)
		}
	}
}

func TestWatchdog(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for want, env := range map[time.Duration]map[string]string{
		0:               {},
		2 * time.Minute: {"WATCHDOG_USEC": "120000000"},
		time.Minute:     {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": own},
	} {
		if got := watchdog(func(name string) string { return env[name] }); got != want {
			t.Errorf("%v: %s, want %s", env, got, want)
		}
	}
	other := map[string]string{"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}
	if got := watchdog(func(name string) string { return other[name] }); got != 0 {
		t.Errorf("of another process: %s", got)
	}
}

func TestPassed(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		pid, fds string
		want     int
		bad      bool
	}{{"", "", 0, false}, {"1", "2", 0, false}, {own, "2", 2, false}, {own, "x", 0, true}, {own, "-1", 0, true}} {
		env := map[string]string{"LISTEN_PID": c.pid, "LISTEN_FDS": c.fds}
		if n, err := passed(func(name string) string { return env[name] }); n != c.want || (err != nil) != c.bad {
			t.Errorf("%v: %d, %v", c, n, err)
		}
	}
}

// Sockets that were passed are listened on, and what is none is an error.
func TestListeners(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	f, err := tcp.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	all, err := listeners(fd, 1)
	if err != nil || len(all) != 1 || all[0].Addr().String() != tcp.Addr().String() {
		t.Fatal(all, err)
	}
	conn, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if in, err := all[0].Accept(); err != nil {
		t.Error(err)
	} else {
		in.Close()
	}
	all[0].Close()
	pipe, _, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fd, err = syscall.Dup(int(pipe.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listeners(fd, 1); err == nil || !strings.Contains(err.Error(), "ListenStream") {
		t.Errorf("a pipe: %v", err)
	}
}
