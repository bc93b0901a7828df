package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"narwharf/e2e/repository"
)

// inStore runs a program as root where the store at root is /nix, with a suite's programs first in PATH.
func (n *Nix) inStore(argv ...string) Output {
	n.T.Helper()
	return run(n.T, program{argv: append([]string{filepath.Join(repository.Root, "e2e", "store-ns.sh"), n.Root}, argv...), env: n.storeEnv(), dir: n.dir})
}

func (n *Nix) storeEnv() []string {
	return append(n.env(), "PATH="+filepath.Join(nixDir(), n.Suite, "bin")+":"+os.Getenv("PATH"), "NIX_REMOTE=local", "NIX_STATE_DIR=/nix/var/nix", "NIX_LOG_DIR=/nix/var/log")
}

// A nix-daemon queues what others build, while the cache is away: builds end at once, a collection takes
// nothing that is queued, the sender may be killed, and when the cache is there everything comes, and is
// no root any more.
func TestUploadHook(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		s := NewServer(t, nil)
		token := s.Token("builder", "push")
		s.Stop()
		d := NewDaemon(t, suite)
		queue := filepath.Join(d.dir, "queue")
		hook := d.write("hook", fmt.Sprintf("#!/bin/sh\nexec %s upload-hook --queue %s\n", narwharfBin(t), queue))
		if err := os.Chmod(hook, 0o755); err != nil {
			t.Fatal(err)
		}
		netrc := d.write("netrc", "machine 127.0.0.1 login x password "+token+"\n")
		d.Set("post-build-hook = " + hook)
		d.Start()
		home := d.Home()
		expr := `let make = name: more: derivation ({ inherit name; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo $name $dep > $out" ]; } // more);
			in make "top" { dep = make "below" { }; }`
		start := time.Now()
		built := d.As(home, nil, "nix-build", "--no-out-link", "-E", expr)
		if built.Code != 0 || time.Since(start) > time.Minute {
			t.Fatalf("after %v: %v\n%s", time.Since(start), built, d.Log())
		}
		path := built.Line()
		queued := func() int {
			t.Helper()
			out := run(t, program{argv: s.argv("upload-hook", "status", "--queue", queue, "--json")})
			if out.Code != 0 {
				t.Fatal(out)
			}
			return strings.Count(out.Stdout, `"path"`)
		}
		if n := queued(); n != 2 {
			t.Fatalf("%d are queued, and 2 were built\n%v\n%s", n, built, d.Log())
		}
		collect := func() { // by any user
			t.Helper()
			if out := d.As(home, nil, "nix-store", "--gc"); out.Code != 0 {
				t.Fatal(out)
			}
		}
		valid := func() bool { t.Helper(); return d.As(home, nil, "nix-store", "--check-validity", path).Code == 0 }
		collect()
		if !valid() {
			t.Fatal("a path that is queued was collected")
		}

		sender := func() *exec.Cmd {
			t.Helper()
			cmd := exec.Command(filepath.Join(repository.Root, "e2e", "store-ns.sh"), d.Root, narwharfBin(t), "upload-hook", "run", "--queue", queue, "--to", s.URL(), "--netrc-file", netrc)
			cmd.Env, cmd.Dir, cmd.SysProcAttr = d.storeEnv(), d.dir, ownGroup()
			var said strings.Builder
			cmd.Stderr = &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
				_ = cmd.Wait()
				if t.Failed() {
					t.Logf("the sender said\n%s", said.String())
				}
			})
			return cmd
		}
		until := func(what string, is func() bool) {
			t.Helper()
			for end := time.Now().Add(time.Minute); !is(); time.Sleep(50 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("not within a minute: %s", what)
				}
			}
		}
		first := sender()
		until("a try that failed", func() bool {
			list, _ := filepath.Glob(filepath.Join(queue, "errors", "*"))
			return len(list) > 0
		})
		if err := syscall.Kill(-first.Process.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = first.Wait()
		if n := queued(); n != 2 {
			t.Fatalf("%d are queued after a kill", n)
		}
		s.Start()
		sender()
		until("an empty queue", func() bool { return queued() == 0 })
		up := NewUploader(t, s.URL(), "")
		if r := up.Get("/" + filepath.Base(path)[:32] + ".narinfo"); r.Status != 200 {
			t.Errorf("the cache has it not: %v", r)
		}
		collect()
		if valid() {
			t.Error("what was sent is a root still")
		}
	})
}
