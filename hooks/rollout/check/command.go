package check

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"narwharf/narinfo/clip"
)

const (
	maxOutput = 4 << 10  // of a command, its last bytes
	maxPaths  = 96 << 10 // of NARWHARF_STORE_PATHS: Linux takes no variable of 128 KiB
	// tempFail is EX_TEMPFAIL of sysexits.h: the command does not know, now.
	tempFail = 75
)

// path is where commands are looked for by those that checks run.
const path = "/run/wrappers/bin:/run/current-system/sw/bin:/usr/local/bin:/usr/bin:/bin"

// command is a program that says by its exit status whether the service is well.
type command struct{ spec *Spec }

func newCommand(s *Spec) (asker, error) {
	switch {
	case !filepath.IsAbs(s.Command[0]):
		return nil, fmt.Errorf("command %s: name the program with its whole path", clip.Quote(s.Command[0], 200))
	case s.TokenFile != "":
		return nil, errors.New("token_file is of prometheus and url: a command reads its own")
	}
	return &command{s}, nil
}

func (c *command) ask(ctx context.Context, about *About) (Said, string) {
	cmd := exec.CommandContext(ctx, c.spec.Command[0], c.spec.Command[1:]...)
	cmd.Dir, cmd.Env = "/", c.spec.environment(about)
	cmd.Stdin = strings.NewReader(strings.Join(about.Paths, "\n") + "\n")
	out := new(tail)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // for what it leaves behind with our pipes
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left behind, mostly nothing
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return None, out.after(fmt.Sprintf("it took longer than %s and was killed", c.spec.Timeout))
	case ctx.Err() != nil:
		return None, "the server is stopping"
	case errors.As(err, &exit) && exit.ExitCode() == tempFail:
		return None, out.after(fmt.Sprintf("exit status %d", tempFail))
	case errors.As(err, &exit) && exit.Exited():
		return No, out.after(exit.String())
	case exit != nil:
		return None, out.after(exit.String())
	case cmd.ProcessState == nil:
		return None, fmt.Sprintf("it was not started: %v", err)
	}
	// Without an error, or with one of our end of its pipes: it is over, and well.
	return Yes, out.after("exit status 0")
}

// environment is all that a command has of one. It is told of what it is asked, and has
// no secret of the server's.
func (s *Spec) environment(about *About) []string {
	env := []string{"PATH=" + path, "HOME=/", "LANG=C.UTF-8",
		"NARWHARF_CHECK=" + s.Name, "NARWHARF_CHANNEL=" + about.Channel,
		"NARWHARF_SEQ=" + strconv.FormatInt(about.Seq, 10), "NARWHARF_WAVE=" + strconv.Itoa(about.Wave)}
	if paths := strings.Join(about.Paths, " "); len(paths) <= maxPaths {
		env = append(env, "NARWHARF_STORE_PATHS="+paths)
	}
	return env
}

// tail keeps the last bytes that are written to it.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p[max(len(p)-maxOutput, 0):]...)
	if len(t.text) > 2*maxOutput {
		t.text = append([]byte(nil), t.text[len(t.text)-maxOutput:]...)
	}
	return len(p), nil
}

// after is some words with the last of what was written behind them.
func (t *tail) after(words string) string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(t.text), "?")), " ")
	if room := MaxDetail - len(words) - len(": …"); len(text) > room {
		text = "…" + strings.ToValidUTF8(text[len(text)-room:], "")
	}
	if text == "" {
		return words
	}
	return words + ": " + text
}
