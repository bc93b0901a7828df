package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"narwharf/e2e/repository"
)

// A Daemon is the nix-daemon of a suite, with a configuration and a store of its own, and no substitutes
// but those that a test says. Its clients are other users. It ends with the test.
type Daemon struct {
	*Nix
	Socket string
	cmd    *exec.Cmd
}

// nobody is a user whom no daemon trusts.
const nobody = "65534"

// NewDaemon makes one. Its programs are in Debian's own place for the suite; it needs root.
func NewDaemon(t testing.TB, suite string, settings ...string) *Daemon {
	t.Helper()
	if os.Getuid() != 0 {
		lacking(t, "a nix-daemon with clients of other users takes root")
	}
	needTool(t, "setpriv", "util-linux")
	needNamespace(t)
	d := &Daemon{Nix: NewNix(t, suite, settings...)}
	d.Socket = filepath.Join(d.dir, "socket")
	if err := os.Chmod(d.dir, 0o755); err != nil { // its clients read nix.conf
		t.Fatal(err)
	}
	t.Cleanup(d.Stop)
	return d
}

// Start starts it, in a mount namespace where its store is /nix.
func (d *Daemon) Start() {
	d.T.Helper()
	if err := os.Chmod(filepath.Join(d.dir, "conf", "nix.conf"), 0o644); err != nil {
		d.T.Fatal(err)
	}
	d.cmd = exec.Command(filepath.Join(repository.Root, "e2e", "store-ns.sh"), d.Root, filepath.Join(nixDir(), d.Suite, "bin", "nix-daemon"))
	env := append(d.env(), "NIX_REMOTE=local", "NIX_STATE_DIR=/nix/var/nix", "NIX_LOG_DIR=/nix/var/log", "NIX_DAEMON_SOCKET_PATH="+d.Socket)
	log, err := os.OpenFile(filepath.Join(d.dir, "daemon.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		d.T.Fatal(err)
	}
	defer log.Close()
	d.cmd.Env, d.cmd.Dir, d.cmd.SysProcAttr, d.cmd.Stderr, d.cmd.Stdout = env, d.dir, ownGroup(), log, log
	if err := d.cmd.Start(); err != nil {
		d.T.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("unix", d.Socket)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(end) {
			d.T.Fatalf("nix-daemon %s does not listen: %v\n%s", d.Version, err, d.Log())
		}
	}
}

// Stop ends it.
func (d *Daemon) Stop() {
	if d.cmd == nil {
		return
	}
	_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
	_ = d.cmd.Wait()
	d.cmd = nil
	if d.T.Failed() {
		d.T.Logf("nix-daemon %s said:\n%s", d.Version, d.Log())
	}
}

// Log is what it wrote.
func (d *Daemon) Log() string {
	text, err := os.ReadFile(filepath.Join(d.dir, "daemon.log"))
	if err != nil {
		return err.Error()
	}
	return Tail(string(text), 6000)
}

// As runs a program as a user of the daemon who is nobody to it, with the client's programs first in PATH and a
// home of his own, where the daemon's store is /nix. More environment counts for more.
func (d *Daemon) As(home string, env []string, argv ...string) Output {
	d.T.Helper()
	e := append([]string{
		"PATH=" + filepath.Join(nixDir(), d.Suite, "bin") + ":" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "HOME=" + home,
		"NIX_REMOTE=daemon", "NIX_DAEMON_SOCKET_PATH=" + d.Socket, "NIX_CONF_DIR=" + filepath.Join(d.dir, "conf"), "NIX_STATE_DIR=" + filepath.Join(home, "state"),
	}, env...)
	return run(d.T, program{argv: append([]string{filepath.Join(repository.Root, "e2e", "store-ns.sh"), d.Root, "setpriv", "--reuid", nobody, "--regid", nobody, "--clear-groups"}, argv...), env: e, dir: home})
}

// Home makes a home for a user of it.
func (d *Daemon) Home() string {
	d.T.Helper()
	home := scratch(d.T)
	if err := os.Chown(home, 65534, 65534); err != nil {
		d.T.Fatal(err)
	}
	return home
}
