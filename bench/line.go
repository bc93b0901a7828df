//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// A line is a network of two: servers listen on host, and clients run behind a wire of 1 Gbit/s.
type line struct{ space, wire string }

// The servers' end of the line, and the clients'.
const (
	lineHost   = "10.231.77.1"
	lineClient = "10.231.77.2"
)

// errNoLine says why there is no line, which costs its rows and nothing else.
var errNoLine = errors.New("no line of 1 Gbit/s")

// openLine makes one, by ip and tc, which needs root.
func openLine() (*line, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: run as root", errNoLine)
	}
	l := &line{space: fmt.Sprintf("nwbench-%d", os.Getpid()), wire: fmt.Sprintf("nwb%d", os.Getpid()%1_000_000)}
	far := l.wire + "c"
	for _, cmd := range []string{
		"ip netns add " + l.space,
		"ip link add " + l.wire + " type veth peer name " + far + " netns " + l.space,
		"ip addr add " + lineHost + "/30 dev " + l.wire,
		"ip link set " + l.wire + " up",
		"ip -n " + l.space + " addr add " + lineClient + "/30 dev " + far,
		"ip -n " + l.space + " link set " + far + " up",
		"ip -n " + l.space + " link set lo up",
		"tc qdisc add dev " + l.wire + " root tbf rate 1gbit burst 128kb latency 50ms",
		"tc -n " + l.space + " qdisc add dev " + far + " root tbf rate 1gbit burst 128kb latency 50ms",
	} {
		words := strings.Fields(cmd)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			l.close()
			return nil, fmt.Errorf("%w: %s: %w: %s", errNoLine, cmd, err, strings.TrimSpace(string(out)))
		}
	}
	return l, nil
}

// close takes the line away; its wire goes with the name space.
func (l *line) close() {
	_ = exec.Command("ip", "link", "del", l.wire).Run() // may be gone, or never made
	_ = exec.Command("ip", "netns", "del", l.space).Run()
}

// behind has a command run at the clients' end. A nil line leaves it where it is.
func (l *line) behind(cmd *exec.Cmd) (*exec.Cmd, error) {
	if l == nil {
		return cmd, nil
	}
	ip, err := exec.LookPath("ip")
	if err != nil {
		return nil, err
	}
	cmd.Args = append([]string{ip, "netns", "exec", l.space, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = ip
	return cmd, nil
}
