package e2e

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
)

// An Output is what a finished program left: exit code (-1: ended by a signal or not started),
// standard output and standard error.
type Output struct {
	Command        string
	Code           int
	Stdout, Stderr string
	Took           time.Duration
	TimedOut       bool
}

// Line is standard output without the newline at its end.
func (o Output) Line() string { return strings.TrimSuffix(o.Stdout, "\n") }

func (o Output) String() string {
	how := fmt.Sprintf("exit %d", o.Code)
	if o.TimedOut {
		how = "timed out"
	}
	return fmt.Sprintf("$ %s\n%s after %v\n--- stdout\n%s\n--- stderr\n%s", o.Command, how,
		o.Took.Round(time.Millisecond), Tail(o.Stdout, 6000), Tail(o.Stderr, 6000))
}

// Tail is the end of a long text, of most bytes.
func Tail(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return "[…]" + s[len(s)-most:]
}

// A program is one to run: its environment is env alone (nil: ours).
type program struct {
	argv    []string
	env     []string
	dir     string
	stdin   string
	timeout time.Duration // 0: two minutes
}

// run runs a program to its end. Only a program that cannot be started fails the test.
func run(t testing.TB, p program) Output {
	t.Helper()
	if p.timeout == 0 {
		p.timeout = 2 * time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.argv[0], p.argv[1:]...)
	cmd.Env, cmd.Dir, cmd.SysProcAttr = p.env, p.dir, ownGroup()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if p.stdin != "" {
		cmd.Stdin = strings.NewReader(p.stdin)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && ctx.Err() == nil {
		t.Fatalf("run %s: %v", strings.Join(p.argv, " "), err)
	}
	return Output{
		Command: strings.Join(p.argv, " "), Code: cmd.ProcessState.ExitCode(),
		Stdout: stdout.String(), Stderr: stderr.String(),
		Took: time.Since(start), TimedOut: ctx.Err() != nil,
	}
}
