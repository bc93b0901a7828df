package e2e

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"narwharf/e2e/browser"

	"narwharf/e2e/repository"
)

// buildDemo compiles bench/demo.
func buildDemo(t testing.TB) string {
	t.Helper()
	program := filepath.Join(scratch(t), "demo")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", program, "./bench/demo")
	build.Dir = repository.Root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build ./bench/demo: %v\n%s", err, out)
	}
	return program
}

// A demo is bench/demo: a server with simulated hosts, which a test leads by lines.
type demo struct {
	t     testing.TB
	url   string
	token string // that may everything
	dir   string
	in    io.Writer
	mu    sync.Mutex
	lines []string
}

// newDemo starts one in which nothing happens by itself.
func newDemo(t testing.TB, args ...string) *demo {
	t.Helper()
	bin, program := narwharfBin(t), buildDemo(t)
	d := &demo{t: t, dir: filepath.Join(scratch(t), "demo")}
	cmd := exec.Command(program, append([]string{"-still", "-switch", "1s", "-bake", "2s", "-dir", d.dir}, args...)...)
	cmd.Env, cmd.SysProcAttr, cmd.Stderr = append(os.Environ(), "NARWHARF_BIN="+bin), ownGroup(), os.Stderr
	var err error
	if d.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			d.mu.Lock()
			d.lines = append(d.lines, lines.Text())
			d.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("the demo: %v\n%s", err, strings.Join(d.said(), "\n"))
		}
	})
	d.await("Ctrl-C ends all")
	for _, line := range d.said() {
		if word, rest, ok := strings.Cut(line, " "); ok {
			switch word {
			case "open":
				d.url = strings.TrimSuffix(strings.TrimSpace(rest), "/ui/")
			case "log":
				d.token = strings.TrimSpace(strings.TrimPrefix(rest, "in"))
			}
		}
	}
	return d
}

func (d *demo) said() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.lines...)
}

// await waits until it has said something, and returns the line.
func (d *demo) await(word string) string {
	d.t.Helper()
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, line := range d.said() {
			if strings.Contains(line, word) {
				return line
			}
		}
	}
	d.t.Fatalf("the demo did not say %q: %s", word, strings.Join(d.said(), "\n"))
	return ""
}

// typed does what somebody types, and waits until it was done.
func (d *demo) typed(line, done string) {
	d.t.Helper()
	if _, err := io.WriteString(d.in, line+"\n"); err != nil {
		d.t.Fatal(err)
	}
	d.await(done)
}

// cli runs a command of narwharf as who may everything.
func (d *demo) cli(args ...string) Output {
	d.t.Helper()
	return run(d.t, program{argv: append([]string{narwharfBin(d.t)}, args...), dir: d.dir, env: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + d.dir, "NARWHARF_SERVER=" + d.url, "NARWHARF_TOKEN_FILE=" + filepath.Join(d.dir, "you.token"),
	}})
}

// is waits until a channel's roll-out has a state.
func (d *demo) is(channel, state string) { d.t.Helper(); d.waits(channel, strings.ToUpper(state)) }

// waits waits until narwharf rollout show has a text.
func (d *demo) waits(channel, text string) {
	d.t.Helper()
	var last Output
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if last = d.cli("rollout", "show", channel); strings.Contains(last.Stdout, text) {
			return
		}
	}
	d.t.Fatalf("%s is not %q: %v", channel, text, last)
}

// browse logs somebody in who may everything.
func (d *demo) browse() *browser.Page {
	d.t.Helper()
	b := newBrowser(d.t)
	b.LogIn(d.url, d.token)
	return b
}
