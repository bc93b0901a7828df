package client

import (
	"bufio"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"narwharf/hooks/doctor"
)

// restarted looks whether nix-daemon has begun since nix.conf was changed: it reads it once.
func (c *Client) restarted(r *doctor.Report) {
	st, err := os.Stat(c.Machine.NixConf())
	if err != nil {
		return
	}
	since, found := daemonStarted("/proc", c.Machine.DaemonSocket())
	switch {
	case !found:
	case since.Before(st.ModTime().Add(-time.Second)):
		r.Fault("nix-daemon", []string{"sudo systemctl restart nix-daemon"}, "nix-daemon runs since %s, and %s was changed at %s: it has not read that yet",
			since.Format(time.DateTime), c.Machine.NixConf(), st.ModTime().Format(time.DateTime))
	default:
		r.OK("nix-daemon", "nix-daemon has read %s", c.Machine.NixConf())
	}
}

// daemonStarted is when the nix-daemon behind a socket began. Where systemd listens for it, it is the oldest
// of that name: those that work for a client are its children, and have what it read.
func daemonStarted(proc, socket string) (oldest time.Time, found bool) {
	pid, ok := listener(socket)
	if !ok || pid == 0 { // 0: it is not in this namespace
		return oldest, false
	}
	boot, ok := bootTime(filepath.Join(proc, "stat"))
	if !ok {
		return oldest, false
	}
	if began, _, ok := started(filepath.Join(proc, strconv.Itoa(pid), "stat"), boot); pid != 1 {
		return began, ok
	}
	names, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", "stat"))
	for _, name := range names {
		if began, comm, ok := started(name, boot); ok && comm == "nix-daemon" && (!found || began.Before(oldest)) {
			oldest, found = began, true
		}
	}
	return oldest, found
}

// listener is the process that listens on a socket.
func listener(socket string) (pid int, ok bool) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return 0, false
	}
	defer conn.Close()
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, false
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return 0, false
	}
	var cred *unix.Ucred
	if err := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || cred == nil {
		return 0, false
	}
	return int(cred.Pid), true
}

// ticks are those of a second in /proc, on every Linux.
const ticks = 100

// started is when a process began, and its name, by its proc(5) stat.
func started(name string, boot time.Time) (began time.Time, comm string, ok bool) {
	text, err := os.ReadFile(name)
	before, rest, _ := strings.Cut(string(text), ") ")
	_, comm, _ = strings.Cut(before, "(")
	fields := strings.Fields(rest) // from the third on
	if err != nil || len(fields) < 20 {
		return began, "", false
	}
	n, err := strconv.ParseInt(fields[19], 10, 64)
	return boot.Add(time.Duration(n) * time.Second / ticks), comm, err == nil
}

func bootTime(file string) (time.Time, bool) {
	f, err := os.Open(file)
	if err != nil {
		return time.Time{}, false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "btime "); ok {
			n, err := strconv.ParseInt(text, 10, 64)
			return time.Unix(n, 0), err == nil
		}
	}
	return time.Time{}, false
}
