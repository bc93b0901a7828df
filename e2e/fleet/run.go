package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"narwharf/e2e"
)

// DefaultTimeout is how long a program may run on a machine of the fleet.
const DefaultTimeout = 2 * time.Minute

// Output is what a program left: its exit code (-1: ended by a signal) and what it wrote.
type Output struct {
	Command  string
	Code     int
	Stdout   string
	Stderr   string
	Took     time.Duration
	TimedOut bool
	Summary  string // of a job, where its forge has one
}

// Line is standard output without white space around it.
func (o Output) Line() string { return strings.TrimSpace(o.Stdout) }

// Lines are the lines of standard output.
func (o Output) Lines() []string {
	if o.Line() == "" {
		return nil
	}
	return strings.Split(o.Line(), "\n")
}

func (o Output) String() string {
	how := fmt.Sprintf("exit code %d", o.Code)
	if o.TimedOut {
		how = "no end"
	}
	return fmt.Sprintf("%s: %s after %v\n%s%s", o.Command, how, o.Took.Round(time.Millisecond), e2e.Tail(o.Stdout, 4000), e2e.Tail(o.Stderr, 4000))
}

// execute runs argv to its end, with the process group as what is killed at the time-out: programs
// in other namespaces have helpers outside. Each of started is told the group. The error is about
// starting; a program that fails is none.
func execute(argv []string, stdin string, limit time.Duration, started ...func(pid int)) (Output, error) {
	if limit == 0 {
		limit = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // a daemon that a program left may hold its output open
	cmd.Dir = "/"
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	err := cmd.Start()
	if err == nil {
		for _, tell := range started {
			tell(cmd.Process.Pid)
		}
		err = cmd.Wait()
	}
	out := Output{
		Command: strings.Join(argv, " "), Code: -1, Stdout: stdout.String(), Stderr: stderr.String(),
		Took: time.Since(begin), TimedOut: ctx.Err() != nil,
	}
	if cmd.ProcessState == nil {
		return out, fmt.Errorf("run %s: %w", out.Command, err)
	}
	out.Code = cmd.ProcessState.ExitCode()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) && !out.TimedOut {
		return out, fmt.Errorf("run %s: %w", out.Command, err)
	}
	return out, nil
}

// Eventually asks check every 50 ms until it says nil, and fails the test with what it said last.
func Eventually(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	begin := time.Now()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Since(begin) > limit {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
