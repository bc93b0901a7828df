package fleet

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// leftovers lists what there still is of a fleet: its folder, control groups, and processes that run
// in it, see its mounts or name its folder.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	id := filepath.Base(dir)
	var left []string
	if _, err := os.Lstat(dir); err == nil {
		left = append(left, dir)
	}
	mounts, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if group := filepath.Join(m, "narwharf-fleet-"+id); exists(group) {
			left = append(left, group)
		}
	}
	pids, err := processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if pid == os.Getpid() {
			continue
		}
		for _, file := range []string{"cgroup", "mountinfo", "cmdline"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			if err == nil && strings.Contains(string(text), id) {
				left = append(left, fmt.Sprintf("process %d (by its %s)", pid, file))
				break
			}
		}
	}
	return left
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

func nothingLeft(t *testing.T, dir string, limit time.Duration) {
	t.Helper()
	Eventually(t, limit, "everything of the fleet is gone", func() error {
		if left := leftovers(t, dir); len(left) > 0 {
			return fmt.Errorf("left behind: %s", strings.Join(left, ", "))
		}
		return nil
	})
}

// TestNothingStays ends fleets in every way there is and looks for what they left on the machine.
func TestNothingStays(t *testing.T) {
	onlyLong(t)
	need(t)
	before := interfaces(t)
	mounted := read(t, "/proc/self/mountinfo")

	Run(t, "closed", func(s *Story) {
		var dir string
		s.T.Run("inner", func(t *testing.T) {
			f := New(t, Options{Hosts: 2})
			dir = f.space.dir
			if left := leftovers(t, dir); len(left) < 10 {
				t.Errorf("a running fleet is to be seen, or this test is blind: %v", left)
			}
		})
		nothingLeft(s.T, dir, 0)
	})
	for _, how := range []string{"panic", "interrupt", "kill", "setup", "kill-both"} {
		Run(t, how, func(s *Story) { endChild(s.T, how) })
	}
	if now := interfaces(t); now != before {
		t.Errorf("the machine's interfaces were %s and are %s", before, now)
	}
	if now := read(t, "/proc/self/mountinfo"); now != mounted {
		t.Errorf("the machine's mounts were\n%s\nand are\n%s", mounted, now)
	}
	if exists("/run/netns") {
		names, _ := filepath.Glob("/run/netns/*")
		for _, n := range names {
			if strings.HasSuffix(n, "/switch") || strings.HasSuffix(n, "/h1") {
				t.Errorf("a network is left: %s", n)
			}
		}
	}
}

func read(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// endChild runs [TestChild] in a process of its own and ends it.
func endChild(t *testing.T, how string) {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.v")
	note := filepath.Join(t.TempDir(), "dir")
	child.Env = append(os.Environ(), "NARWHARF_FLEET_CHILD="+how, "NARWHARF_FLEET_NOTE="+note, "NARWHARF_STORIES=", "NARWHARF_FLEET_LOGS=")
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	child.Stdout, child.Stderr = &out, &out
	child.WaitDelay = 30 * time.Second
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = child.Wait()
		close(exited)
	}()
	var dir string
	for end := time.Now().Add(BootTimeout); dir == ""; time.Sleep(20 * time.Millisecond) {
		text, _ := os.ReadFile(note)
		dir = strings.TrimSpace(string(text))
		if time.Now().After(end) {
			_ = child.Process.Kill()
			t.Fatalf("the child has not got to its end: %s", out.String())
		}
	}
	reaper := 0
	if how == "kill-both" {
		if _, err := fmt.Sscanf(read(t, filepath.Join(dir, "reaper")), "%d", &reaper); err != nil {
			t.Fatal(err)
		}
	}
	switch how {
	case "interrupt": // as a terminal does, to the whole group
		_ = syscall.Kill(-child.Process.Pid, syscall.SIGINT)
	case "kill-both":
		_ = syscall.Kill(reaper, syscall.SIGKILL)
		_ = child.Process.Kill()
	case "kill":
		_ = child.Process.Kill()
	}
	select {
	case <-exited:
	case <-time.After(time.Minute):
		_ = child.Process.Kill()
		t.Fatalf("the child does not end: %s", out.String())
	}
	if child.ProcessState.Success() {
		t.Errorf("the child ended well: %s", out.String())
	}
	switch how {
	case "setup":
		if !strings.Contains(out.String(), "no_such_key") {
			t.Errorf("the child does not say what went wrong: %s", out.String())
		}
	case "kill-both":
		if left := leftovers(t, dir); len(left) == 0 {
			t.Error("with the reaper killed too something has to be left, or this test is blind")
		}
		if _, err := Clean(false); err != nil {
			t.Error(err)
		}
	}
	nothingLeft(t, dir, 10*time.Second)
}

// TestChild is what endChild starts: a fleet that ends in a bad way.
func TestChild(t *testing.T) {
	how, note := os.Getenv("NARWHARF_FLEET_CHILD"), os.Getenv("NARWHARF_FLEET_NOTE")
	if how == "" {
		t.Skip("only a child of TestNothingStays")
	}
	tell := func(f *Fleet) {
		if err := os.WriteFile(note+".new", []byte(f.space.dir), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(note+".new", note); err != nil {
			t.Fatal(err)
		}
	}
	options := Options{Hosts: 1}
	if how == "setup" { // fails when most is there
		options.System = func(f *Fleet) System {
			tell(f)
			f.Server().Configure(func(toml string) string { return "no_such_key = 1\n" + toml })
			f.Server().Restart()
			return System{}
		}
	}
	f := New(t, options)
	tell(f)
	if how == "panic" { // in a goroutine, so that no clean-up of the test is run
		go panic("on purpose")
	}
	time.Sleep(time.Minute)
}
