package fleet

import (
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A Job is a program that runs on a machine while the test goes on. It ends with the fleet at the
// latest.
type Job struct {
	t      testing.TB
	name   string
	mu     sync.Mutex
	pid    int // leader of its process group here; 0 before and after
	killed bool
	done   chan struct{}
	out    Output
	err    error
}

// Start starts a program. An hour is a limit for what nobody ends: a test on a busy machine lasts for long.
func (m Machine) Start(args ...string) *Job {
	m.T.Helper()
	argv, err := m.argv(args...)
	if err != nil {
		m.T.Fatalf("%s: %v", m.m.name, err)
	}
	j := &Job{t: m.T, name: m.m.name + "$ " + strings.Join(args, " "), done: make(chan struct{})}
	go func() {
		defer close(j.done)
		j.out, j.err = execute(argv, "", time.Hour, j.runs)
		j.out.Command = j.name
		j.runs(0)
	}()
	return j
}

// runs notes the process that Kill ends.
func (j *Job) runs(pid int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pid = pid
	if j.killed && pid != 0 {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
}

// Ended reports whether the program has ended.
func (j *Job) Ended() bool {
	select {
	case <-j.done:
		return true
	default:
		return false
	}
}

// Wait waits for the program's end; the test fails when that takes longer than limit.
func (j *Job) Wait(limit time.Duration) Output {
	j.t.Helper()
	select {
	case <-j.done:
	case <-time.After(limit):
		j.Kill()
		<-j.done
		j.t.Fatalf("no end within %v: %v", limit, j.out)
	}
	if j.err != nil {
		j.t.Fatal(j.err)
	}
	return j.out
}

// Kill ends the program with SIGKILL.
func (j *Job) Kill() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.killed = true
	if j.pid != 0 {
		_ = syscall.Kill(-j.pid, syscall.SIGKILL)
	}
}
