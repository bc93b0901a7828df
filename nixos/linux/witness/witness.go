// Package witness tells whether anything can be reached from this host: whether the server
// is away, or the host is cut off.
package witness

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Parse reads a witness: "tcp:HOST:PORT", "ping:HOST" or an HTTP URL.
func Parse(s string) (kind, rest string, err error) {
	kind, rest, ok := strings.Cut(s, ":")
	switch {
	case ok && kind == "tcp":
		_, _, err = net.SplitHostPort(rest)
	case ok && kind == "ping" && rest != "" && !strings.ContainsAny(rest, "/ "):
	case ok && (kind == "http" || kind == "https"):
		u, e := url.Parse(s)
		if e != nil || u.Host == "" {
			return "", "", fmt.Errorf("%q is not a URL", s)
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[kind]
		}
		kind, rest = "tcp", net.JoinHostPort(u.Hostname(), port)
	default:
		err = fmt.Errorf("%q is neither tcp:HOST:PORT nor ping:HOST nor a URL", s)
	}
	if err != nil {
		return "", "", fmt.Errorf("%q: %w", s, err)
	}
	return kind, rest, nil
}

// Ask tries the witnesses, or where there are none the default gateways. One that answers
// is enough: the text is its name, or why none does.
func Ask(ctx context.Context, witnesses []string) (alive bool, text string) {
	if len(witnesses) == 0 {
		for _, g := range gateways("/proc/net/route", "/proc/net/ipv6_route") {
			witnesses = append(witnesses, "ping:"+g)
		}
	}
	if len(witnesses) == 0 {
		return false, "there is no default gateway"
	}
	var silent []string
	for _, w := range witnesses {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := ask(ctx, w)
		cancel()
		if err == nil {
			return true, w
		}
		silent = append(silent, fmt.Sprintf("%s: %v", w, err))
	}
	return false, strings.Join(silent, ", ")
}

func ask(ctx context.Context, w string) error {
	kind, rest, err := Parse(w)
	if err != nil {
		return err
	}
	if kind == "tcp" {
		return touch(ctx, rest)
	}
	if err := ping(ctx, rest); err == nil {
		return nil
	}
	// Many gateways do not answer pings; a refused connection is an answer.
	return touch(ctx, net.JoinHostPort(rest, "53"))
}

// touch connects, or is refused by the very host.
func touch(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err == nil {
		return conn.Close()
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	return err
}

// ping sends ICMP echo requests, which needs root (RFC 792, RFC 4443).
func ping(ctx context.Context, host string) error {
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", strings.Split(host, "%")[0])
	if err != nil {
		return err
	}
	ip := ips[0].Unmap()
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if ip.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
		if _, zone, ok := strings.Cut(host, "%"); ok {
			ip = ip.WithZone(zone)
		}
	}
	conn, err := net.ListenPacket(network, "")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	id := uint16(os.Getpid())
	for seq := range uint16(3) {
		packet := []byte{request, 0, 0, 0, byte(id >> 8), byte(id), 0, byte(seq)}
		if ip.Is4() {
			binary.BigEndian.PutUint16(packet[2:], checksum(packet)) // the kernel does it for IPv6
		}
		if _, err := conn.WriteTo(packet, &net.IPAddr{IP: ip.AsSlice(), Zone: ip.Zone()}); err != nil {
			return err
		}
		until := time.Now().Add(time.Second)
		if t, ok := ctx.Deadline(); ok && t.Before(until) {
			until = t
		}
		if err := conn.SetReadDeadline(until); err != nil {
			return err
		}
		if answered(conn, ip, id, reply) {
			return nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.New("no answer")
}

// answered waits for an echo reply to id until the connection's deadline.
func answered(conn net.PacketConn, ip netip.Addr, id uint16, reply byte) bool {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return false
		}
		a, ok := from.(*net.IPAddr)
		if ok && n >= 8 && buf[0] == reply && binary.BigEndian.Uint16(buf[4:]) == id && a.IP.Equal(ip.AsSlice()) {
			return true
		}
	}
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// gateways reads the kernel's tables of routes for the default ones
// (net/ipv4/fib_trie.c: host byte order; net/ipv6/route.c: network order).
func gateways(v4, v6 string) []string {
	var found []string
	lines(v4, func(f []string) {
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" || f[2] == "00000000" {
			return
		}
		// The address's four bytes, read as a number of this machine's.
		if n, err := strconv.ParseUint(f[2], 16, 32); err == nil {
			var ip [4]byte
			binary.NativeEndian.PutUint32(ip[:], uint32(n))
			found = append(found, netip.AddrFrom4(ip).String())
		}
	})
	lines(v6, func(f []string) {
		if len(f) < 10 || strings.Trim(f[0], "0") != "" || f[1] != "00" || strings.Trim(f[4], "0") == "" {
			return
		}
		if b, err := hex.DecodeString(f[4]); err == nil && len(b) == 16 {
			ip := netip.AddrFrom16([16]byte(b))
			if ip.IsLinkLocalUnicast() {
				ip = ip.WithZone(f[9])
			}
			found = append(found, ip.String())
		}
	})
	slices.Sort(found)
	return slices.Compact(found)
}

func lines(name string, do func(fields []string)) {
	f, err := os.Open(name)
	if err != nil {
		return
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		do(strings.Fields(s.Text()))
	}
}
