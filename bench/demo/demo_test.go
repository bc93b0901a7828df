package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/hooks/api/rollouts"
	"narwharf/hooks/rollout"
)

// output is what the demo writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// program is the one to demonstrate: NARWHARF_BIN, or one that is built here.
func program(t *testing.T) string {
	if bin := os.Getenv("NARWHARF_BIN"); bin != "" {
		if _, err := os.Stat(bin); err == nil {
			return bin
		}
	}
	bin := filepath.Join(t.TempDir(), "narwharf")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "narwharf/cmd/narwharf")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build narwharf: %v\n%s", err, out)
	}
	return bin
}

// Five hosts take a good release; a bad one is halted at the canary; and at the end nothing is left.
func TestDemo(t *testing.T) {
	out, dir := new(output), filepath.Join(t.TempDir(), "demo")
	typed, in := io.Pipe()
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, options{hosts: 5, switching: 300 * time.Millisecond, bake: time.Second, pause: time.Second, dir: dir, program: program(t), still: true, in: typed, out: out})
	}()
	promote := func(what string, seq int64, want rollout.State) {
		t.Helper()
		if _, err := io.WriteString(in, what+"\n"); err != nil { // it reads once it is ready
			t.Fatal(err)
		}
		robot, err := (&server{dir: dir, url: said(out, "open ", "/ui/")}).client("robot")
		if err != nil {
			t.Fatal(err)
		}
		s := &stage{carol: rollouts.Client{Client: robot}, pause: time.Second, say: t.Logf}
		c := &channel{name: strings.Fields(what)[1]}
		if got, err := s.follow(ctx, c, seq); got != want || err != nil {
			t.Errorf("%s is %s, %v; want %s\n%s", what, got, err, want, out)
		}
	}
	failed := make(chan struct{})
	watch := time.AfterFunc(5*time.Minute, func() { close(failed); end(); typed.Close() })
	defer watch.Stop()
	promote("good web", 2, rollout.Completed)
	promote("bad web", 3, rollout.Halted)
	promote("good db", 2, rollout.Completed)
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	select {
	case <-failed:
		t.Errorf("it took too long\n%s", out)
	default:
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is still there", dir)
	}
}

// said is what stands between two texts of the output.
func said(out *output, from, to string) string {
	_, text, _ := strings.Cut(out.String(), from)
	text, _, _ = strings.Cut(text, to)
	return strings.TrimSpace(text)
}

func TestHigher(t *testing.T) {
	for was, want := range map[string]string{"2.40-66": "2.40-67", "10.0p2": "10.0p3", "2025b": "2025b.1", "2025b.1": "2025b.2", "9.9": "9.10"} {
		if got := higher(was); got != want {
			t.Errorf("after %s comes %s, want %s", was, got, want)
		}
	}
}
