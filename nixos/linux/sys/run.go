// Package sys is what the parts of a Linux host share: programs, what the agent asks of the
// kernel, and locks.
//
// A program is run to its end, with all that it started, and the last of what it wrote is
// kept. What programs say is reported to people, so no password of a proxy is in it.
package sys

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// tail keeps the last bytes that are written to it.
type tail struct {
	max  int
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if len(t.text) > 2*t.max {
		t.text = append([]byte(nil), t.text[len(t.text)-t.max:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	text := t.text[max(len(t.text)-t.max, 0):]
	return strings.ToValidUTF8(strings.TrimSpace(string(text)), "?")
}

// Run runs a program to its end; with ctx, all that it started ends. The output has at most
// limit bytes, its last ones; words are the last of what it wrote to its standard error,
// which the error has, too.
func Run(ctx context.Context, limit int, env []string, name string, args ...string) (output, words string, err error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	if env != nil {
		cmd.Env = append(cmd.Environ(), env...)
	}
	out, errs := &tail{max: limit}, &tail{max: 2048}
	cmd.Stdout, cmd.Stderr = out, errs
	err = cmd.Run()
	words = withoutPasswords(errs.String(), cmd.Environ())
	switch {
	case err == nil:
		return out.String(), words, nil
	case ctx.Err() != nil:
		err = fmt.Errorf("%s took too long: %w", name, ctx.Err())
	case !errors.As(err, new(*exec.ExitError)):
		return "", "", fmt.Errorf("run %s: %w", name, err)
	default:
		err = fmt.Errorf("%s: %w", name, err)
	}
	if words != "" {
		err = fmt.Errorf("%w: %s", err, words)
	}
	return out.String(), words, err
}

// withoutPasswords hides what an environment has of proxies' users in the words
// of a program: curl, and so Nix from 2.26 on, names a proxy that it cannot make
// out in full ("Unsupported proxy syntax in"), and words are reported.
func withoutPasswords(words string, env []string) string {
	for _, assignment := range env {
		name, value, _ := strings.Cut(assignment, "=")
		if _, rest, ok := strings.Cut(value, "://"); ok {
			value = rest
		}
		at := strings.LastIndexByte(value, '@')
		if at < 1 || !strings.HasSuffix(strings.ToLower(name), "_proxy") {
			continue
		}
		user := value[:at+1]
		words = strings.ReplaceAll(words, user, "***@")
		for i := range at { // of a tail, which may begin in the middle of it
			if rest, ok := strings.CutPrefix(words, user[i:]); ok {
				words = "***@" + rest
				break
			}
		}
	}
	return words
}
