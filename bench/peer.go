//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"narwharf/bench/load"
	"narwharf/narinfo"
)

// A peer is another server of the local store that runs already: see the
// package comment for how to bring one. It is measured with its own URLs of
// NARs, whatever they are, so it has rows of its own.
type peer struct{ name, addr, prefix string }

func parsePeer(v string) (peer, error) {
	name, at, ok := strings.Cut(v, "=")
	u, err := url.Parse(at)
	if err != nil || !ok || name == "" || u.Scheme != "http" {
		return peer{}, errors.New("want NAME=http://ADDRESS:PORT")
	}
	if _, err := netip.ParseAddrPort(u.Host); err != nil {
		return peer{}, fmt.Errorf("want a numeric address with its port, not %s", u.Host)
	}
	return peer{name, u.Host, strings.TrimSuffix(u.Path, "/")}, nil
}

// whoListens is the server of a peer, whose processes are not ours: it is never ended.
func whoListens(p peer) (*server, error) {
	_, port, err := net.SplitHostPort(p.addr)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	inodes := make(map[string]bool)
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} { // proc_pid_net(5)
		text, err := os.ReadFile(file)
		if err != nil {
			continue // there may be no IPv6
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 9 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", n)) {
				inodes["socket:["+f[9]+"]"] = true
			}
		}
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is well-formed
	for _, link := range links {
		to, err := os.Readlink(link)
		if err != nil || !inodes[to] {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(link, "/")[2])
		if err != nil {
			return nil, err
		}
		process, err := os.FindProcess(pid)
		return &server{name: p.name, addr: p.addr, cmd: &exec.Cmd{Process: process}}, err
	}
	return nil, fmt.Errorf("peer %s: no process is seen that listens on port %s (run as its user, or as root)", p.name, port)
}

// peers measures each peer in turn with the server: narinfos, and the NARs of
// the closure at 1, 4 and 16 connections. CPU times of a peer are not known.
func (l *local) peers() ([]row, error) {
	var out []row
	for _, p := range l.p.peers {
		rows, err := l.peer(p)
		if err != nil {
			return nil, fmt.Errorf("peer %s: %w", p.name, err)
		}
		out = append(out, rows...)
	}
	return out, nil
}

func (l *local) peer(p peer) ([]row, error) {
	infos, nars, packed, err := l.askPeer(p)
	if err != nil {
		return nil, err
	}
	var out []row
	compare := func(what, format string, conns int, ours, theirs []load.Request, number func(sample) float64) error {
		all, err := rounds(l.p.localRounds, 2, func(i int) (sample, error) {
			addr, reqs := l.subject.addr, ours
			if i == 1 {
				addr, reqs = p.addr, theirs
			}
			s, err := peerSample(addr, reqs, conns, l.p)
			progress("%s, server %d of 2: %.4g", what, i+1, s.value)
			return s, err
		})
		if err == nil {
			out = append(out, newRow(what, format, all[0], all[1], number))
		}
		return err
	}
	if err := compare(fmt.Sprintf("local store: narinfo, 16 connections, against %s (not nginx), req/s", p.name), "%.0f", 16,
		l.requests(l.urls(infoURL)...), infos, byValue); err != nil {
		return nil, err
	}
	// A whole closure each, whatever is on the wire: in closures per second.
	perSecond := func(s sample) float64 { return float64(len(l.st.paths)) / s.value }
	for _, conns := range []int{1, 4, 16} {
		what := fmt.Sprintf("local store: whole closure, %s, against %s (%s), s", connections(conns), p.name, packed)
		if err := compare(what, "%.3f", conns, l.requests(l.urls(packedURL)...), nars, perSecond); err != nil {
			return nil, err
		}
	}
	if packed != notPacked {
		return out, nil
	}
	// Like against like: made from the store's files on both sides.
	var plain []load.Request
	for _, i := range l.st.paths {
		plain = append(plain, load.Get(plainURL(i), i.NarSize))
	}
	for _, conns := range []int{1, 4, 16} {
		what := fmt.Sprintf("local store: whole closure uncompressed, %s, against %s, s", connections(conns), p.name)
		if err := compare(what, "%.3f", conns, plain, nars, perSecond); err != nil {
			return nil, err
		}
	}
	return out, nil
}

const notPacked = "compression none"

// askPeer reads all of the peer's narinfos and each of its NARs once.
func (l *local) askPeer(p peer) (infos, nars []load.Request, form string, err error) {
	conn, err := dial(p.addr, "")
	if err != nil {
		return nil, nil, "", err
	}
	defer conn.close()
	for _, want := range l.st.paths {
		name := p.prefix + narinfoPath(want.Path)
		text, err := conn.get(name)
		if err != nil {
			return nil, nil, "", err
		}
		got, err := narinfo.Parse(text)
		if err != nil {
			return nil, nil, "", fmt.Errorf("GET %s: %w", name, err)
		}
		if got.NarHash != want.NarHash {
			return nil, nil, "", fmt.Errorf("GET %s: it has another NarHash than the store; does it serve %s?", name, l.st.root)
		}
		infos = append(infos, load.Get(name, int64(len(text))))
		url := p.prefix + "/" + got.URL
		sum, err := conn.save(url, "/dev/null", false)
		if err != nil {
			return nil, nil, "", err
		}
		nars = append(nars, load.Get(url, sum.size))
		form = "compression " + got.Compression // of all, no server mixes them
	}
	return infos, nars, form, nil
}

// peerSample is one measurement of a server whose processes are not ours.
func peerSample(addr string, reqs []load.Request, conns int, p plan) (sample, error) {
	pool, err := load.Dial(addr, conns)
	if err != nil {
		return sample{}, err
	}
	defer pool.Close()
	if _, err := pool.Run(reqs, load.Limit{Duration: p.sample / 5}); err != nil {
		return sample{}, err
	}
	res, err := pool.Run(reqs, load.Limit{Count: len(reqs)})
	if err != nil {
		return sample{}, err
	}
	return sample{value: res.Rate()}, nil
}
