package fleet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"narwharf/e2e"
)

// BootTimeout is how long a host may take from power to the end of its boot.
const BootTimeout = time.Minute

// rebootCode is how systemd-nspawn --keep-unit says that the host wants to boot again.
const rebootCode = 133

// A host is a machine with a systemd; handles of it are [Host].
type host struct {
	*machine
	tmpfsRoot bool

	mu     sync.Mutex
	on     *exec.Cmd     // systemd-nspawn in nsenter; nil when off
	off    chan struct{} // closed when on has ended for good
	boots  int           // how many began
	leader int           // the host's first process, 0 while it is not known
	ended  string        // how the last boot ended
	before string        // journals of boots that the host has forgotten
}

// newHost writes a host's layer and mounts it.
func (f *Fleet) newHost(name string, o HostOptions) error {
	env := environment("NIX_REMOTE=daemon")
	options := []string{fmt.Sprintf("boot=%d", o.BootSize)}
	if o.StoreSize > 0 {
		options = append(options, fmt.Sprintf("store=%d", o.StoreSize))
	}
	if o.TmpfsRoot {
		options = append(options, "root=tmpfs")
	}
	var tree string
	if o.Suite != "bookworm" {
		tree = nixTree(f.T, o.Suite)
		options = append(options, "nix="+tree)
	}
	m, err := f.newMachine(name, env, options...)
	if err != nil {
		return err
	}
	f.hosts[name] = &host{machine: m, tmpfsRoot: o.TmpfsRoot}
	files := map[string]string{
		"etc/NIXOS":         "",
		"etc/fleet/address": fmt.Sprintf("address=%s/24\ngateway=%s\nserver=%s\n", m.address, gatewayAddress, serverAddress),
		"etc/nix/nix.conf": "sandbox = false\nbuilders =\nexperimental-features = nix-command\nconnect-timeout = 5\n" +
			"substituters = http://" + serverName + "\ntrusted-public-keys = " + f.keys[ciKey] + "\n",
		"etc/systemd/journald.conf.d/fleet.conf": "[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\n",
		"usr/local/lib/fleet/boot!":              script("host/boot"),
		"usr/local/lib/fleet/network!":           script("host/network"),
	}
	if tree != "" {
		files["etc/systemd/system/nix-daemon.service.d/fleet.conf"] =
			"[Service]\nExecStart=\nExecStart=@/opt/nix/bin/nix-daemon nix-daemon --daemon\n"
	}
	for name, text := range o.Files {
		files[name] = text
	}
	if err := m.layer(files); err != nil {
		return err
	}
	if tree != "" { // services find the programs of that Nix too
		programs, err := os.ReadDir(filepath.Join(tree, "bin"))
		if err != nil {
			return err
		}
		local := filepath.Join(m.dir(), "layer/usr/local/bin")
		if err := os.MkdirAll(local, 0o755); err != nil {
			return err
		}
		for _, p := range programs {
			if err := os.Symlink("/opt/nix/bin/"+p.Name(), filepath.Join(local, p.Name())); err != nil {
				return err
			}
		}
	}
	return m.mount()
}

// offline is a command line on the files and network of a host that is off.
func (h *host) offline(args ...string) []string {
	const enter = `mount -t proc proc "$1/proc"; root=$1; shift; exec chroot "$root" /usr/bin/env -i "$@"`
	argv := []string{"unshare", "--mount", "--propagation", "private", "sh", "-euc", enter, "sh", h.rootDir()}
	for _, e := range h.env {
		if e != "NIX_REMOTE=daemon" {
			argv = append(argv, e)
		}
	}
	return h.space.argv(h.name, append(argv, args...)...)
}

// install makes a system from the cache the one that the host boots, as an installer would.
func (h *host) install(system string) error {
	const steps = `/usr/local/lib/fleet/network up
nix-store --realise "$1" > /dev/null
nix-env --profile /nix/var/nix/profiles/system --set "$1"
"$1/bin/switch-to-configuration" boot
ip link set eth0 down`
	out, err := execute(h.offline("/bin/sh", "-euc", steps, "sh", system), "", 0)
	if err == nil && out.Code != 0 {
		err = fmt.Errorf("install %s: %v", system, out)
	}
	return err
}

// enter is a command line on the running host.
func (h *host) enter(args ...string) ([]string, error) {
	h.mu.Lock()
	leader, ended := h.leader, h.ended
	h.mu.Unlock()
	if leader == 0 {
		return nil, fmt.Errorf("%s is off (%s)", h.name, ended)
	}
	argv := append([]string{"nsenter", "--target", fmt.Sprint(leader), "--all", "--", "/usr/bin/env", "-i"}, h.env...)
	return append(argv, args...), nil
}

func (h *host) console() string { return filepath.Join(h.dir(), "console") }

// start begins a boot. h.mu is held.
func (h *host) start() error {
	argv := h.space.argv("", "sh", "-c", script("space/spawn.sh"), "spawn.sh", h.name, h.rootDir())
	for _, group := range h.space.groups {
		argv = append(argv, filepath.Join(group, h.name))
	}
	console, err := os.OpenFile(h.console(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = console.Close() }()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Dir = "/"
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	h.on, h.leader, h.ended = cmd, 0, ""
	h.boots++
	go h.watch(cmd)
	return nil
}

// watch waits for the end of a boot, and begins the next one if the host wants to reboot.
func (h *host) watch(cmd *exec.Cmd) {
	_ = cmd.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leader = 0
	if cmd.ProcessState.ExitCode() == rebootCode {
		err := h.again()
		if err == nil {
			return
		}
		h.ended = err.Error()
	} else {
		h.ended = cmd.ProcessState.String()
	}
	h.on = nil
	close(h.off)
}

func (h *host) again() error {
	if h.tmpfsRoot {
		if h.boots > 0 {
			h.before += journalOf(h.offline())
		}
		if err := h.mount(); err != nil {
			return err
		}
	}
	return h.start()
}

// boot starts a host that is off and waits until it is up.
func (h *host) boot(limit time.Duration) error {
	h.mu.Lock()
	if h.on != nil {
		h.mu.Unlock()
		return errors.New("it is on already")
	}
	h.off = make(chan struct{})
	err := h.again()
	if err != nil {
		close(h.off)
	}
	boots := h.boots
	h.mu.Unlock()
	if err != nil {
		return err
	}
	return h.waitUp(boots, limit)
}

// waitUp waits until at least the given boot has come to its end: every job of the default target
// is done, whether or not units failed.
func (h *host) waitUp(boots int, limit time.Duration) error {
	last := "no boot began"
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(30 * time.Millisecond) {
		h.mu.Lock()
		begun, on, ended := h.boots >= boots, h.on, h.ended
		h.mu.Unlock()
		if on == nil {
			return fmt.Errorf("it went off (%s)\n%s", ended, h.consoleTail())
		}
		if !begun {
			continue
		}
		if last = "no first process"; !h.findLeader(on) {
			continue
		}
		argv, err := h.enter("systemctl", "is-system-running")
		if err != nil {
			continue
		}
		out, err := execute(argv, "", 10*time.Second)
		if err != nil {
			return err
		}
		switch last = strings.TrimSpace(out.Stdout + out.Stderr); last {
		case "running", "degraded":
			return nil
		}
	}
	return fmt.Errorf("not up within %v (%s)\n%s", limit, last, h.consoleTail())
}

// findLeader finds the first process of a boot.
func (h *host) findLeader(on *exec.Cmd) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.on != on {
		return false
	}
	if h.leader != 0 {
		return true
	}
	nspawn, err := children(on.Process.Pid)
	if err != nil || len(nspawn) != 1 {
		return false
	}
	inside, err := children(nspawn[0])
	if err != nil {
		return false
	}
	for _, pid := range inside {
		if firstOfNamespace(pid, 2) {
			h.leader = pid
			return true
		}
	}
	return false
}

// waitOff waits until the host is off.
func (h *host) waitOff(limit time.Duration) error {
	h.mu.Lock()
	off := h.off
	h.mu.Unlock()
	if off == nil {
		return nil
	}
	select {
	case <-off:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("not off within %v\n%s", limit, h.consoleTail())
	}
}

func (h *host) consoleTail() string {
	text, err := os.ReadFile(h.console())
	if err != nil {
		return err.Error()
	}
	return e2e.Tail(string(text), 3000)
}

// log is the host's console and journal, of all boots.
func (h *host) log() string {
	argv, err := h.enter()
	if err != nil {
		argv = h.offline()
	}
	text := journalOf(argv)
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.consoleTail() + "\n" + h.before + text
}

// journalOf is the journal that a command line on a host reads.
func journalOf(argv []string) string {
	out, err := execute(append(argv, "journalctl", "--no-pager", "-o", "short-precise", "--directory=/var/log/journal"), "", 20*time.Second)
	if err != nil {
		out.Stderr = err.Error()
	}
	return out.Stdout + out.Stderr
}
