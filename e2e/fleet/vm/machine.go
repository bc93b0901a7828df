package vm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"narwharf/e2e/fleet"
)

// BootTimeout is how long a machine may take from its initrd to the end of its boot, or for its
// shutdown. It is emulated, and takes five seconds where nothing else runs.
const BootTimeout = 6 * time.Minute

// A machine is a virtual machine; handles of it are [Host].
type machine struct {
	fleet *fleet.Fleet
	dir   string // of the fleet's host; the disks are in its vm
	parts string

	mu     sync.Mutex
	cmd    *exec.Cmd     // qemu in nsenter; nil when off
	off    chan struct{} // closed when the machine is off for good
	cut    bool          // its power was cut
	resets int           // how often its firmware was started
}

// command runs one of the embedded scripts in the fleet, in the host's network.
func (m *machine) command(name string, args ...string) *exec.Cmd {
	argv := m.fleet.Command("h1", append([]string{"bash", "-c", script(name), filepath.Base(name)}, args...)...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	return cmd
}

// call is a command line that runs args in the machine.
func (m *machine) call(args ...string) ([]string, error) {
	if !m.on() {
		return nil, errors.New("h1 is off")
	}
	return m.fleet.Command("h1", append([]string{"bash", "-c", script("call.sh"), "call.sh"}, args...)...), nil
}

// make makes the disks.
func (m *machine) make() error {
	out, err := m.command("image.sh", m.dir, m.parts, size(espSize), size(rootSize), size(storeSize)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (m *machine) on() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cmd != nil
}

// start switches the machine on.
func (m *machine) start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd != nil {
		return errors.New("it is on already")
	}
	if err := m.power(); err != nil {
		return err
	}
	m.off, m.cut = make(chan struct{}), false
	return nil
}

// power starts qemu, for one boot. m.mu is held.
func (m *machine) power() error {
	cmd := m.command("power.sh", m.dir, m.parts)
	qemu, err := os.OpenFile(filepath.Join(m.dir, "vm", "qemu.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = qemu.Close() }()
	cmd.Stdout, cmd.Stderr = qemu, qemu
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	m.cmd = cmd
	m.resets++
	go m.watch(cmd)
	return nil
}

// watch waits for the end of a boot, and begins the next one unless the machine switched itself off.
// Whatever else made it end with 0 was a reset: a reboot, a panic, a boot loader that gave up.
func (m *machine) watch(cmd *exec.Cmd) {
	err := cmd.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	shown := m.console()
	if err == nil && !m.cut && !strings.Contains(shown[max(0, len(shown)-200):], "reboot: Power down") {
		if m.power() == nil {
			return
		}
	}
	m.cmd = nil
	close(m.off)
}

// cutPower ends qemu with SIGKILL.
func (m *machine) cutPower() error {
	m.mu.Lock()
	cmd, off := m.cmd, m.off
	m.cut = true
	if cmd == nil {
		m.mu.Unlock()
		return errors.New("it is off")
	}
	pid, err := onlyChild(cmd.Process.Pid) // of nsenter
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	return m.waitOff(off, 20*time.Second)
}

func onlyChild(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("process %d should have one child, and has %q", pid, text)
	}
	return child, nil
}

func (m *machine) waitOff(off chan struct{}, limit time.Duration) error {
	select {
	case <-off:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("not off within %v\n%s", limit, m.tail())
	}
}

// console is what the machine has shown since it was made.
func (m *machine) console() string {
	text, err := os.ReadFile(filepath.Join(m.dir, "vm", "console"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err.Error()
	}
	return string(text)
}

func (m *machine) tail() string {
	text := m.console()
	if qemu, err := os.ReadFile(filepath.Join(m.dir, "vm", "qemu.log")); err == nil {
		text += string(qemu)
	}
	return text[max(0, len(text)-4000):]
}

// bootLine is what the initrd of a machine writes, with the boot's id and the init that it starts.
const bootLine = "fleet: boot "

// waitFor waits until what the machine shows after the byte `from` has a text.
func (m *machine) waitFor(text string, from int, limit time.Duration) error {
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		on := m.on() // before the console is read
		if shown := m.console(); strings.Contains(shown[min(from, len(shown)):], text) {
			return nil
		}
		if !on {
			return fmt.Errorf("it went off without %q\n%s", text, m.tail())
		}
		if time.Now().After(end) {
			return fmt.Errorf("no %q within %v\n%s", text, limit, m.tail())
		}
	}
}
