package vm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"narwharf/e2e/fleet"
)

// A Host is a fleet's host that is a virtual machine. What runs programs on it or asks it is as with
// every host of a fleet; what has to do with power is of its own.
type Host struct {
	*fleet.Host
	m *machine
}

// For is the same host for a subtest.
func (h *Host) For(t testing.TB) *Host {
	return &Host{Host: h.m.fleet.For(t).Host(h.Name()).Over(h.m.call), m: h.m}
}

// Boot switches on a machine that is off and waits until it is up.
func (h *Host) Boot() {
	h.T.Helper()
	n := h.Boots() + 1
	h.PowerOn()
	h.AwaitBoot(n)
}

// PowerOn switches on a machine that is off, and waits for nothing.
func (h *Host) PowerOn() {
	h.T.Helper()
	if err := h.m.start(); err != nil {
		h.T.Fatalf("switch %s on: %v", h.Name(), err)
	}
}

// Reboot is `systemctl reboot`, and waits until the machine is up again.
func (h *Host) Reboot() {
	h.T.Helper()
	n := h.Boots() + 1
	h.AskFor("reboot")
	h.AwaitBoot(n)
}

// AskFor is `systemctl` with reboot or poweroff, whose own end may not be seen.
func (h *Host) AskFor(what string) {
	h.T.Helper()
	// 254: the machine was off before it could answer.
	if out := h.ExecFor(BootTimeout, "systemctl", "--no-block", what); out.Code != 0 && out.Code != 254 {
		h.T.Fatalf("%v", out)
	}
}

// Boots is how many boots got as far as the initrd.
func (h *Host) Boots() int { return strings.Count(h.m.console(), bootLine) }

// Firmware is how often the firmware was started: a kexec is a boot without it.
func (h *Host) Firmware() int {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	return h.m.resets
}

// AwaitBoot waits until boot number n (see [Host.Boots]), or one after it, is up. What is to lead to
// it may take [BootTimeout] from one boot to the next.
func (h *Host) AwaitBoot(n int) {
	h.T.Helper()
	for seen, since := h.Boots(), time.Now(); seen < n; time.Sleep(50 * time.Millisecond) {
		if now := h.Boots(); now != seen {
			seen, since = now, time.Now()
		} else if !h.m.on() || time.Since(since) > BootTimeout {
			h.T.Fatalf("%s: boot %d does not begin (on: %v)\n%s", h.Name(), n, h.m.on(), h.m.tail())
		}
	}
	from := 0
	for shown := h.m.console(); n > 0; n-- {
		from += strings.Index(shown[from:], bootLine) + len(bootLine)
	}
	if err := h.m.waitFor("fleet: up ", from, BootTimeout); err != nil {
		h.T.Fatalf("boot %s: %v", h.Name(), err)
	}
	h.Exec("systemctl", "is-system-running", "--wait")
}

// PowerOff is `systemctl poweroff`.
func (h *Host) PowerOff() {
	h.T.Helper()
	h.m.mu.Lock()
	off := h.m.off
	h.m.mu.Unlock()
	h.AskFor("poweroff")
	if err := h.m.waitOff(off, BootTimeout); err != nil {
		h.T.Fatalf("power off %s: %v", h.Name(), err)
	}
}

// PowerCut ends qemu at once: what the machine had not flushed to its disks is lost.
func (h *Host) PowerCut() {
	h.T.Helper()
	if err := h.m.cutPower(); err != nil {
		h.T.Fatalf("cut the power of %s: %v", h.Name(), err)
	}
}

// On reports whether the machine is on.
func (h *Host) On() bool { return h.m.on() }

// Mark is where the console is now, for [Host.AwaitConsole].
func (h *Host) Mark() int { return len(h.m.console()) }

// AwaitConsole waits until the machine shows a text after a mark.
func (h *Host) AwaitConsole(mark int, text string, limit time.Duration) {
	h.T.Helper()
	if err := h.m.waitFor(text, mark, limit); err != nil {
		h.T.Fatalf("%s: %v", h.Name(), err)
	}
}

// Console is all that the machine has shown.
func (h *Host) Console() string { return h.m.console() }

// Hold makes the machine stop when it next comes to a point, once: "before-entry" and "after-entry"
// of the boot loader script, or any name that a system's own scripts give to
// /usr/local/lib/fleet/hold. It says "fleet: held NAME" on the console then.
func (h *Host) Hold(point string) {
	h.T.Helper()
	h.Sh(`mkdir -p /var/lib/fleet/hold; rm -f "/var/lib/fleet/hold/$1.go"; : > "/var/lib/fleet/hold/$1"; sync -f /var/lib/fleet/hold`, point)
}

// Forget says whether the root is a tmpfs from the next boot on.
func (h *Host) Forget(yes bool) {
	h.T.Helper()
	step := "rm -f"
	if yes {
		step = "touch"
	}
	h.Sh("mkdir -p /var/lib/fleet; " + step + " /var/lib/fleet/tmpfs-root; sync -f /var/lib/fleet")
}

// Root is the kind of file system that / is: "tmpfs", or "ext2/ext3".
func (h *Host) Root() string {
	h.T.Helper()
	return h.Must("stat", "--file-system", "--format=%T", "/")
}

// Release lets a machine go on that is held at a point.
func (h *Host) Release(point string) {
	h.T.Helper()
	h.Must("touch", "/var/lib/fleet/hold/"+point+".go")
}

// saveLogs shows the end of the console of a failed test and the journal, and copies both to
// NARWHARF_FLEET_LOGS.
func (h *Host) saveLogs() {
	if !h.T.Failed() {
		return
	}
	h.T.Helper()
	text := h.m.console() + "\n" + h.journal()
	h.T.Logf("end of the log of the machine\n%s", text[max(0, len(text)-6000):])
	if dir := os.Getenv("NARWHARF_FLEET_LOGS"); dir != "" {
		name := filepath.Join(dir, strings.ReplaceAll(h.T.Name(), "/", "-")+"-machine.log")
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			h.T.Logf("save the log: %v", err)
		}
	}
}

// journal is the machine's journal of all boots, read from its disk when it is off.
func (h *Host) journal() string {
	if h.m.on() {
		if argv, err := h.m.call("journalctl", "--no-pager", "-o", "short-precise", "--lines=2000"); err == nil {
			cmd := exec.Command("timeout", append([]string{"30"}, argv...)...)
			if out, err := cmd.Output(); err == nil {
				return string(out)
			}
		}
		if err := h.m.cutPower(); err != nil {
			return err.Error()
		}
	}
	out, err := h.m.command("disk.sh", h.m.dir, "root").CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	return string(out)
}

// DiskFile is what the disk ("root" or "store") of a machine that is off has of a file; the name is
// that in the disk's file system. A file that is not there is empty.
func (h *Host) DiskFile(disk, name string) string {
	h.T.Helper()
	if h.m.on() {
		h.T.Fatalf("the disks of %s are in use", h.Name())
	}
	var stderr strings.Builder
	cmd := h.m.command("disk.sh", h.m.dir, disk, name)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		h.T.Fatalf("read %s of the disk %s: %v: %s", name, disk, err, stderr.String())
	}
	return string(out)
}
