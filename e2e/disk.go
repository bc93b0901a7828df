package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A SmallDisk is a file system of a fixed size. It is mounted in a mount namespace that lives as
// long as the test, so that no mount stays on the host whatever happens; programs that shall see it
// are run with Prefix, and files are looked at from outside under Outside.
type SmallDisk struct {
	Dir    string   // its mount point
	Prefix []string // to put before a command line
	pid    int
}

// NewSmallDisk mounts one of size bytes on dir.
func NewSmallDisk(t testing.TB, dir string, size int64) *SmallDisk {
	t.Helper()
	unshare := needNamespace(t)
	needTool(t, "nsenter", "util-linux")
	script := fmt.Sprintf(`mount -t tmpfs -o size=%d,mode=700 none "$1" && echo mounted && exec cat`, size)
	cmd := exec.Command("unshare", append(unshare, "sh", "-c", script, "small-disk", dir)...)
	cmd.SysProcAttr = ownGroup()
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe() // its end ends the namespace
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	if line, _ := bufio.NewReader(stdout).ReadString('\n'); strings.TrimSpace(line) != "mounted" {
		lacking(t, "this user cannot mount a tmpfs in a mount namespace")
	}
	enter := []string{"nsenter", "--target", fmt.Sprint(cmd.Process.Pid), "--mount"}
	if os.Getuid() != 0 {
		enter = append(enter, "--user", "--preserve-credentials")
	}
	return &SmallDisk{Dir: dir, Prefix: append(enter, "--"), pid: cmd.Process.Pid}
}

// Outside is the name under which the host sees a file of the namespace.
func (d *SmallDisk) Outside(name string) string {
	return filepath.Join("/proc", fmt.Sprint(d.pid), "root", name)
}

// Fill writes a file until nothing more fits, and returns a function that removes it.
func (d *SmallDisk) Fill(t testing.TB) (free func()) {
	t.Helper()
	name := d.Outside(filepath.Join(d.Dir, "ballast"))
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	return func() { _ = os.Remove(name) }
}
