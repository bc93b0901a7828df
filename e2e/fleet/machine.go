package fleet

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"
)

// A machine is a file system and a network in the space of a fleet.
type machine struct {
	space   *space
	name    string
	address string
	names   map[string]string // addresses of all machines
	options []string          // of space/tree.sh
	base    string
	env     []string // of every program run on it
}

// dir is the machine's folder on this machine, rootDir its / as seen inside the space.
func (m *machine) dir() string     { return filepath.Join(m.space.dir, m.name) }
func (m *machine) rootDir() string { return filepath.Join(m.dir(), "root") }

// layer puts files into the layer between the base tree and what the machine writes. Only before the
// machine is mounted. A name ending in ! is executable (the ! is no part of it), one that holds a
// token or secret key is readable by root alone.
func (m *machine) layer(files map[string]string) error {
	for name, text := range files {
		mode := os.FileMode(0o644)
		if n, ok := strings.CutSuffix(name, "!"); ok {
			name, mode = n, 0o755
		}
		if strings.Contains(name, "token") || strings.Contains(name, "netrc") || strings.HasSuffix(name, ".sec") || strings.HasSuffix(name, "_key") {
			mode = 0o600
		}
		file := filepath.Join(m.dir(), "layer", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			return err
		}
	}
	return nil
}

// layerFile copies a file of this machine into the layer, executable.
func (m *machine) layerFile(from, name string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return m.layer(map[string]string{name + "!": string(text)})
}

func (m *machine) mount() error {
	return m.space.script("space/tree.sh", append([]string{m.dir(), m.base}, m.options...)...)
}

// chroot is a command line that runs args on the machine's files and network without its systemd.
func (m *machine) chroot(args ...string) []string {
	argv := append([]string{"chroot", m.rootDir(), "/usr/bin/env", "-i"}, m.env...)
	return m.space.argv(m.name, append(argv, args...)...)
}

// common is what every machine's layer holds.
func common(name, id string, addresses map[string]string) map[string]string {
	names := make([]string, 0, len(addresses))
	for n := range addresses {
		names = append(names, n)
	}
	sort.Strings(names)
	hosts := "127.0.0.1 localhost\n"
	for _, n := range names {
		hosts += addresses[n] + " " + n + "\n"
	}
	return map[string]string{
		"etc/hostname":   name + "\n",
		"etc/machine-id": id + "\n",
		"etc/hosts":      hosts,
	}
}

// environment is a clean one; /opt/nix is another Nix than Debian's, where there is one.
func environment(more ...string) []string {
	return append([]string{
		"PATH=/opt/nix/bin:/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LC_ALL=C.UTF-8", "TERM=dumb",
	}, more...)
}

// A Machine runs programs; [Host], [Server] and [CI] are machines.
type Machine struct {
	T testing.TB
	m *machine
	// argv puts a command line into the machine, running or not.
	argv func(args ...string) ([]string, error)
}

// Name is the machine's name in its network.
func (m Machine) Name() string { return m.m.name }

// Address is the machine's IPv4 address.
func (m Machine) Address() string { return m.m.address }

// Exec runs a program on the machine.
func (m Machine) Exec(args ...string) Output {
	m.T.Helper()
	return m.ExecFor(0, args...)
}

// ExecFor is Exec with a time-out (0: [DefaultTimeout]).
func (m Machine) ExecFor(limit time.Duration, args ...string) Output {
	m.T.Helper()
	return m.exec(limit, "", args...)
}

func (m Machine) exec(limit time.Duration, stdin string, args ...string) Output {
	m.T.Helper()
	out, err := m.try(limit, stdin, args...)
	if err != nil {
		m.T.Fatalf("%s: %v", m.m.name, err)
	}
	return out
}

// try is exec for where no test may be ended: other goroutines, waiting.
func (m Machine) try(limit time.Duration, stdin string, args ...string) (Output, error) {
	argv, err := m.argv(args...)
	if err != nil {
		return Output{Command: strings.Join(args, " "), Code: -1, Stderr: err.Error()}, err
	}
	out, err := execute(argv, stdin, limit)
	out.Command = m.m.name + "$ " + strings.Join(args, " ")
	return out, err
}

// Must runs a program that has to end with 0 and returns its standard output, trimmed.
func (m Machine) Must(args ...string) string {
	m.T.Helper()
	out := m.Exec(args...)
	if out.Code != 0 {
		m.T.Fatalf("%v", out)
	}
	return out.Line()
}

// Sh runs a shell script that has to end with 0; args are its $1, $2, ….
func (m Machine) Sh(script string, args ...string) string {
	m.T.Helper()
	return m.Must(append([]string{"/bin/bash", "-euo", "pipefail", "-c", script, "sh"}, args...)...)
}

// ReadFile is the text of a file on the machine.
func (m Machine) ReadFile(name string) string {
	m.T.Helper()
	out := m.Exec("cat", name)
	if out.Code != 0 {
		m.T.Fatalf("%v", out)
	}
	return out.Stdout
}

// WriteFile writes a file on the machine, with the folders it needs.
func (m Machine) WriteFile(name, text string, mode os.FileMode) {
	m.T.Helper()
	const write = `mkdir -p "$(dirname "$1")" && umask 077 && cat > "$1.new" && chmod "$2" "$1.new" && mv "$1.new" "$1"`
	out := m.exec(0, text, "/bin/sh", "-c", write, "sh", name, fmt.Sprintf("%o", mode))
	if out.Code != 0 {
		m.T.Fatalf("write %s: %v", name, out)
	}
}
