package fleet

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A space is the namespace that a fleet lives in, with its folder and the reaper that takes both
// away. What was started in it cannot outlive it.
type space struct {
	dir    string   // .cache/fleet/run/<id>
	groups []string // control groups, one for each hierarchy that systemd uses
	outer  int      // process id of unshare(1), whose namespaces are entered
	reaper *exec.Cmd
	hold   io.Closer // the pipe whose end the reaper waits for
	ended  chan struct{}

	once sync.Once
	err  error // of the end
}

// openSpace makes an empty space. The reaper is there before anything that it has to reap.
func openSpace() (s *space, err error) {
	runs := filepath.Join(cacheDir(), "run")
	if err := os.MkdirAll(runs, 0o755); err != nil {
		return nil, err
	}
	s = &space{ended: make(chan struct{})}
	if s.dir, err = os.MkdirTemp(runs, fmt.Sprintf("%d-", os.Getpid())); err != nil {
		return nil, err
	}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return nil, err
	}
	if err := s.startReaper(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	mounts, err := hierarchies()
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		s.groups = append(s.groups, filepath.Join(m, "narwharf-fleet-"+filepath.Base(s.dir)))
	}
	if err := s.write("cgroups", strings.Join(s.groups, "\n")+"\n"); err != nil {
		return nil, err
	}
	return s, s.startInit()
}

func (s *space) write(name, text string) error {
	return os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644)
}

func (s *space) startReaper() error {
	s.reaper = exec.Command("sh", "-c", script("space/reap.sh"), "reap.sh", s.dir)
	// It must not get the Ctrl-C that ends the test. Its messages go where the test's go; `go test`
	// waits for that end to be closed, so it does not return before everything is gone.
	s.reaper.Stderr = os.Stderr
	s.reaper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	hold, err := s.reaper.StdinPipe()
	if err != nil {
		return err
	}
	s.hold = hold
	if err := s.reaper.Start(); err != nil {
		return fmt.Errorf("start the reaper: %w", err)
	}
	start, err := startTime(s.reaper.Process.Pid)
	if err != nil {
		return err
	}
	return s.write("reaper", fmt.Sprintf("%d %s\n", s.reaper.Process.Pid, start))
}

// startInit starts the namespace's first process and notes it for the reaper.
func (s *space) startInit() error {
	cmd := exec.Command("sh", "-c", `run=$1
read -r stat < /proc/$$/stat
set -- ${stat##*) }
echo "$$ ${20}" > "$run/processes"
exec unshare --mount --pid --fork --kill-child --mount-proc --propagation private sh -c "$INIT" init.sh`, "unshare", s.dir)
	cmd.Env = append(os.Environ(), "INIT="+script("space/init.sh"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Dir = "/"
	var failed strings.Builder
	cmd.Stderr = &failed
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start unshare: %w", err)
	}
	s.outer = cmd.Process.Pid
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	go func() {
		_ = cmd.Wait()
		close(s.ended)
	}()
	if line != "ready\n" {
		<-s.ended
		return fmt.Errorf("no namespaces on this machine (needs CAP_SYS_ADMIN; in a container: privileged): %s", failed.String())
	}
	first, err := children(s.outer)
	if err != nil {
		return err
	}
	if len(first) != 1 {
		return fmt.Errorf("unshare has %d children instead of one", len(first))
	}
	start, err := startTime(first[0])
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(s.dir, "processes"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%d %s\n", first[0], start)
	return errors.Join(err, f.Close())
}

// argv is a command line that runs args in the space, in one of its networks ("": the machine's,
// which a program that needs none must not use).
func (s *space) argv(network string, args ...string) []string {
	proc := fmt.Sprintf("/proc/%d/", s.outer)
	argv := []string{"nsenter", "--mount=" + proc + "ns/mnt", "--pid=" + proc + "ns/pid_for_children"}
	if network != "" {
		argv = append(argv, "--net="+proc+"root/run/netns/"+network)
	}
	return append(append(argv, "--"), args...)
}

// script runs one of the embedded scripts in the space.
func (s *space) script(name string, args ...string) error {
	argv := append(s.argv("", "sh", "-c", script(name), filepath.Base(name)), args...)
	out, err := execute(argv, "", 0)
	if err == nil && out.Code != 0 {
		err = fmt.Errorf("%s %s: exit code %d: %s%s", name, strings.Join(args, " "), out.Code, out.Stdout, out.Stderr)
	}
	return err
}

// close takes everything away and says what could not be. It can be called twice.
func (s *space) close() error {
	s.once.Do(func() {
		_ = s.hold.Close()
		done := make(chan error, 1)
		go func() { done <- s.reaper.Wait() }()
		select {
		case err := <-done:
			if err != nil {
				s.err = fmt.Errorf("the reaper of %s: %w", s.dir, err)
			}
		case <-time.After(time.Minute):
			s.err = fmt.Errorf("the reaper of %s does not end", s.dir)
		}
	})
	return s.err
}
