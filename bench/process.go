//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A server is a running program under test: one process and its children.
type server struct {
	name  string
	addr  string // host:port for reads
	put   string // host:port for uploads, "" if it takes none
	token string // for uploads, "" if it asks for none
	admin string // a token that may see /metrics
	nars  string // folder where its NARs lie
	cmd   *exec.Cmd
	log   string        // file of what it said
	gone  chan struct{} // closed when the process has ended

	newToken func(name, scope string) (string, error) // nil if it knows none
}

// start runs cmd in a process group of its own, with dir for its log, and waits
// until addr accepts connections. The kernel kills it if the benchmark dies.
func start(name, addr, dir string, cmd *exec.Cmd) (*server, error) {
	s := &server{name: name, addr: addr, cmd: cmd, log: filepath.Join(dir, "log"), gone: make(chan struct{})}
	log, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = cmd.Wait()
		close(s.gone)
	}()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return s, nil
		}
		select {
		case <-s.gone:
			return nil, fmt.Errorf("%s ended at once, having said:\n%s", name, s.said())
		default:
		}
		if time.Now().After(deadline) {
			s.stop()
			return nil, fmt.Errorf("%s does not listen on %s after 20 s, having said:\n%s", name, addr, s.said())
		}
	}
}

// said is the end of the server's log, for error messages.
func (s *server) said() string {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}

// stop asks the process to end, and makes it end if it takes longer than 10 s.
func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.gone:
	case <-time.After(10 * time.Second):
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		<-s.gone
	}
}

// pids are the process and its children, nginx's workers.
func (s *server) pids() []int {
	pids := []int{s.cmd.Process.Pid}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed
	for _, name := range stats {
		st, err := readStat(name)
		if err == nil && st.parent == s.cmd.Process.Pid {
			pids = append(pids, st.pid)
		}
	}
	return pids
}

// cpu is the CPU time that the server has used so far, in user and kernel
// mode, in steps of 10 ms.
func (s *server) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, pid := range s.pids() {
		st, err := readStat(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, fmt.Errorf("CPU time of %s: %w", s.name, err)
		}
		sum += st.cpu
	}
	return sum, nil
}

// ownCPU is the CPU time that this process has used so far.
func ownCPU() time.Duration {
	var use unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &use); err != nil {
		panic(err) // it has no way to fail
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

type stat struct {
	pid, parent int
	cpu         time.Duration
}

// userHz is the unit of times in /proc, the same on every Linux that Go runs on.
const userHz = 100

// readStat reads /proc/PID/stat, see proc_pid_stat(5).
func readStat(name string) (stat, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(text))
}

func parseStat(text string) (stat, error) {
	// The second field is a file name in parentheses, with any bytes in it.
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return stat{}, fmt.Errorf("no process status: %.80q", text)
	}
	fields := strings.Fields(text[end+1:]) // from the third on
	if len(fields) < 13 {
		return stat{}, fmt.Errorf("no process status: %.80q", text)
	}
	pid, err1 := strconv.Atoi(strings.TrimSpace(text[:open]))
	parent, err2 := strconv.Atoi(fields[1])
	user, err3 := strconv.ParseInt(fields[11], 10, 64)
	kernel, err4 := strconv.ParseInt(fields[12], 10, 64)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return stat{}, fmt.Errorf("process status: %w", err)
	}
	return stat{pid, parent, time.Duration(user+kernel) * (time.Second / userHz)}, nil
}

// memory is the resident memory of the server's process, now and at its peak
// since forgetPeak, in bytes.
func (s *server) memory() (now, peak int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, 0, fmt.Errorf("memory of %s: %w", s.name, err)
	}
	if now, err = statusKiB(string(text), "VmRSS"); err != nil {
		return 0, 0, err
	}
	peak, err = statusKiB(string(text), "VmHWM")
	return now, peak, err
}

// forgetPeak makes the present memory the peak, see proc_pid_clear_refs(5).
func (s *server) forgetPeak() error {
	name := fmt.Sprintf("/proc/%d/clear_refs", s.cmd.Process.Pid)
	if err := os.WriteFile(name, []byte("5"), 0); err != nil {
		return fmt.Errorf("reset the peak memory of %s: %w", s.name, err)
	}
	return nil
}

// watchOwn looks how much memory the server's process has of its own, without what it has
// mapped of files, until stop is called, which returns the most that was seen.
func (s *server) watchOwn() (stop func() int64) {
	ended, most := make(chan struct{}), make(chan int64)
	go func() {
		peak := int64(0)
		for {
			select {
			case <-ended:
				most <- peak
				return
			case <-time.After(10 * time.Millisecond):
			}
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
			if err == nil {
				var now int64
				if now, err = statusKiB(string(text), "RssAnon"); err == nil {
					peak = max(peak, now)
				}
			}
		}
	}()
	return func() int64 {
		close(ended)
		return <-most
	}
}

func statusKiB(text, key string) (int64, error) {
	for line := range strings.Lines(text) {
		name, v, _ := strings.Cut(line, ":")
		if name == key {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("process status has no %s", key)
}

// freeAddr is an address on the loopback interface where nobody listens now.
func freeAddr() (string, error) { return freeAddrOn(loopback) }

const loopback = "127.0.0.1"

func freeAddrOn(host string) (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
