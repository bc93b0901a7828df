// Package address knows which addresses lead into somebody's own network. Who follows a name that
// others chose asks none of those, and looks when it dials: a name may lead elsewhere by then.
package address

import (
	"net/netip"
	"slices"
)

// special are addresses that lead to somebody's own network and that netip does not call private
// (IANA's registries of special-purpose addresses), some of them by an address of IPv4 within.
var special = prefixes("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15", "240.0.0.0/4",
	"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "fec0::/10")

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, t := range texts {
		list = append(list, netip.MustParsePrefix(t))
	}
	return list
}

// Private tells whether an address and port, as the Control of a net.Dialer is told them, are of a
// private network or of this machine. What is no address counts as one.
func Private(address string) bool {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return true
	}
	a := at.Addr().Unmap().WithZone("")
	return !a.IsGlobalUnicast() || a.IsPrivate() || slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}
