package fleet

import (
	"strings"
	"syscall"
	"time"
)

// A Host is a machine that runs a [System] under a real systemd.
type Host struct {
	Machine
	h *host
}

func (f *Fleet) handle(h *host) *Host {
	return &Host{Machine: Machine{T: f.T, m: h.machine, argv: h.enter}, h: h}
}

// Boot switches on a host that is off and waits until it is up.
func (h *Host) Boot() {
	h.T.Helper()
	if err := h.h.boot(BootTimeout); err != nil {
		h.T.Fatalf("boot %s: %v", h.Name(), err)
	}
}

// Reboot is `systemctl reboot`, and waits until the host is up again.
func (h *Host) Reboot() {
	h.T.Helper()
	boots := h.Boots()
	h.Exec("systemctl", "reboot") // its exit code tells little: it may be killed on the way
	h.AwaitBoot(boots + 1)
}

// Boots is how many boots of this host began.
func (h *Host) Boots() int {
	h.h.mu.Lock()
	defer h.h.mu.Unlock()
	return h.h.boots
}

// AwaitBoot waits until boot number n (see [Host.Boots]) or a later one is up: for reboots that
// something on the host asked for.
func (h *Host) AwaitBoot(n int) {
	h.T.Helper()
	if err := h.h.waitUp(n, BootTimeout); err != nil {
		h.T.Fatalf("reboot %s: %v", h.Name(), err)
	}
}

// PowerOff is `systemctl poweroff`.
func (h *Host) PowerOff() {
	h.T.Helper()
	h.Exec("systemctl", "poweroff")
	if err := h.h.waitOff(BootTimeout); err != nil {
		h.T.Fatalf("power off %s: %v", h.Name(), err)
	}
}

// PowerCut ends every process of the host at once. What it wrote stays: the page cache is the
// machine's.
func (h *Host) PowerCut() {
	h.T.Helper()
	h.h.mu.Lock()
	leader := h.h.leader
	h.h.mu.Unlock()
	if leader == 0 {
		h.T.Fatalf("cut the power of %s: it is off", h.Name())
	}
	if err := syscall.Kill(leader, syscall.SIGKILL); err != nil {
		h.T.Fatalf("cut the power of %s: %v", h.Name(), err)
	}
	if err := h.h.waitOff(10 * time.Second); err != nil {
		h.T.Fatalf("cut the power of %s: %v", h.Name(), err)
	}
}

// On reports whether the host is on.
func (h *Host) On() bool {
	h.h.mu.Lock()
	defer h.h.mu.Unlock()
	return h.h.on != nil
}

// Link is the state of a machine's cable.
type Link int

// A cable is plugged in, unplugged (the machine sees no carrier), or plugged into a dead port: the
// carrier is there and nothing comes through, so that open connections wait for their time-outs.
const (
	LinkUp Link = iota
	LinkDown
	LinkDead
)

// Link plugs or unplugs the machine's cable.
func (m Machine) Link(to Link) {
	m.T.Helper()
	commands := map[Link][][]string{
		LinkUp:   {{"master", "br0"}, {"up"}},
		LinkDown: {{"down"}},
		LinkDead: {{"up"}, {"nomaster"}},
	}[to]
	for _, c := range commands {
		argv := m.m.space.argv("", append([]string{"ip", "-n", "switch", "link", "set", m.m.name}, c...)...)
		out, err := execute(argv, "", 0)
		if err != nil || out.Code != 0 {
			m.T.Fatalf("link of %s: %v %v", m.m.name, err, out)
		}
	}
}

// State is what a host runs and will boot.
type State struct {
	BootID     string
	Current    string   // store path behind /run/current-system
	Booted     string   // store path behind /run/booted-system
	Profile    string   // store path behind /nix/var/nix/profiles/system
	Generation string   // "system-3-link"
	BootEntry  string   // store path that the default boot entry names
	Hello      string   // what hello.service of the current system wrote
	Running    string   // systemctl is-system-running
	Failed     []string // units
	Agent      string   // ActiveState of narwharf.service
	AgentPID   string   // "0" when it does not run
}

const stateScript = `
line() { printf '%s\n' "$(tr '\n' ' ')"; }
cat /proc/sys/kernel/random/boot_id
readlink -f /run/current-system | line
readlink -f /run/booted-system | line
readlink -f /nix/var/nix/profiles/system | line
readlink /nix/var/nix/profiles/system | line
entry=$(sed -n 's/^default //p' /boot/loader/loader.conf)
sed -n 's#^options .*init=\([^ ]*\)/init .*#\1#p' "/boot/loader/entries/$entry" 2> /dev/null | line
cat /run/hello 2> /dev/null | line
systemctl is-system-running | line
systemctl list-units --failed --plain --no-legend --full | cut -d ' ' -f 1 | line
systemctl show narwharf.service --property=ActiveState --value
systemctl show narwharf.service --property=MainPID --value`

// State asks a running host.
func (h *Host) State() State {
	h.T.Helper()
	out := h.Exec("/bin/sh", "-c", stateScript)
	lines := strings.Split(out.Stdout, "\n")
	if len(lines) < 11 {
		h.T.Fatalf("state of %s: %v", h.Name(), out)
	}
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return State{
		BootID: lines[0], Current: lines[1], Booted: lines[2], Profile: lines[3], Generation: lines[4], BootEntry: lines[5],
		Hello: lines[6], Running: lines[7], Failed: strings.Fields(lines[8]), Agent: lines[9], AgentPID: lines[10],
	}
}

// Journal is what a unit logged in this boot.
func (h *Host) Journal(unit string) string {
	h.T.Helper()
	return h.Must("journalctl", "--no-pager", "--boot", "--output=cat", "--unit="+unit)
}

// Realise fetches a store path from the cache through the host's nix-daemon.
func (h *Host) Realise(path string) Output {
	h.T.Helper()
	return h.Exec("nix-store", "--realise", path)
}

// SetProfile makes a store path the newest generation of the system profile.
func (h *Host) SetProfile(system string) {
	h.T.Helper()
	h.Must("nix-env", "--profile", "/nix/var/nix/profiles/system", "--set", system)
}

// Switch runs a system's switch-to-configuration as nixos-rebuild does: in a transient unit with
// the name that everybody uses, which is the lock against a second one.
func (h *Host) Switch(system, action string) Output {
	h.T.Helper()
	return h.SwitchFor(0, system, action)
}

// SwitchFor is Switch with a time-out (0: [DefaultTimeout]), after which it goes on nevertheless.
func (h *Host) SwitchFor(limit time.Duration, system, action string) Output {
	h.T.Helper()
	return h.ExecFor(limit, "systemd-run", "--collect", "--no-ask-password", "--pipe", "--quiet", "--wait", "--service-type=exec",
		"--unit=nixos-rebuild-switch-to-configuration", system+"/bin/switch-to-configuration", action)
}
