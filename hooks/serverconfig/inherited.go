package serverconfig

import (
	"net"
	"net/netip"
	"strings"
)

// take returns the listener of inherited ones that is at an address of listen, nil if none is, and the
// others. An unspecified address is every one that there is: systemd's ListenStream=8080 is ":8080".
func take(address string, inherited []net.Listener) (net.Listener, []net.Listener) {
	for _, same := range []func(a, b string) bool{func(a, b string) bool { return a == b }, samePlace} {
		for i, l := range inherited {
			if same(address, addressOf(l)) {
				return l, append(inherited[:i:i], inherited[i+1:]...)
			}
		}
	}
	return nil, inherited
}

// addressOf is where a listener listens, as listen has it.
func addressOf(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return "unix:" + l.Addr().String()
	}
	return l.Addr().String()
}

// samePlace tells whether two addresses are one, however they are written.
func samePlace(a, b string) bool {
	pa, oka := parsePlace(a)
	pb, okb := parsePlace(b)
	if !oka || !okb {
		return false
	}
	return pa == pb || pa.Port() == pb.Port() && pa.Addr().IsUnspecified() && pb.Addr().IsUnspecified()
}

func parsePlace(address string) (netip.AddrPort, bool) {
	if strings.HasPrefix(address, ":") {
		address = "[::]" + address
	}
	p, err := netip.ParseAddrPort(address)
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port()), err == nil
}
