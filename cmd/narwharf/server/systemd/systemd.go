// Package systemd is what a service says to systemd and gets from it: that it is ready and
// alive, and the sockets that it listens on (sd_notify(3), sd_listen_fds(3)). Without
// systemd all of it does nothing.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Notify says something to systemd, if it started us with Type=notify: "READY=1", "STATUS=…".
func Notify(state ...string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	if strings.HasPrefix(name, "@") {
		name = "\x00" + name[1:]
	}
	if conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"}); err == nil {
		_, _ = conn.Write([]byte(strings.Join(state, "\n"))) // else systemd runs into its own time-out and says so
		_ = conn.Close()
	}
}

// Reload says that a reload begins, and that it has ended once f has.
func Reload(f func()) {
	Notify("RELOADING=1", "STATUS=reading keys and certificates again")
	f()
	Notify("READY=1")
}

// statusInterval is how often STATUS is said where systemd has no watchdog, or a slow one.
const statusInterval = 30 * time.Second

// Tend says STATUS, with the number of uploads, again and again until ctx ends, and that we are
// alive as long as alive has no error and comes back: a service that hangs is started anew after WatchdogSec=.
func Tend(ctx context.Context, uploads func() int64, alive func() error) {
	interval := statusInterval
	if w := watchdog(os.Getenv); w > 0 {
		interval = min(interval, w/3)
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := alive(); err == nil {
			Notify("WATCHDOG=1", fmt.Sprintf("STATUS=serving, %d uploads under way", uploads()))
		} else {
			Notify("STATUS=not well: " + err.Error())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// watchdog is within which time systemd wants to hear that we are alive, 0 if it does not.
func watchdog(getenv func(string) string) time.Duration {
	if pid := getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	n, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || n <= 0 {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

// firstSocket is the descriptor of the first socket that systemd passes.
const firstSocket = 3

// Listeners are the sockets that systemd listens on for us, none if it does not. What we
// start in turn does not get them.
func Listeners() ([]net.Listener, error) {
	n, err := passed(os.Getenv)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name) // only a malformed name is an error
	}
	return listeners(firstSocket, n)
}

// listeners are those of n descriptors from first on, which are closed.
func listeners(first, n int) (all []net.Listener, err error) {
	for fd := first; fd < first+n; fd++ {
		syscall.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "socket of systemd "+strconv.Itoa(fd-first))
		l, lerr := net.FileListener(f)
		if lerr != nil {
			err = errors.Join(err, fmt.Errorf("%s is none to accept connections on (ListenStream=): %w", f.Name(), lerr))
		} else {
			all = append(all, l)
		}
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		for _, l := range all {
			l.Close()
		}
		return nil, err
	}
	return all, nil
}

// passed is how many sockets systemd passes to this process.
func passed(getenv func(string) string) (int, error) {
	if getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return 0, nil // none, or they are for the process that started us
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || n < 0 {
		return 0, fmt.Errorf("LISTEN_FDS is %q, and no number of sockets", getenv("LISTEN_FDS"))
	}
	return n, nil
}
