package relay

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"narwharf/signing/access/address"
)

// outside are the hosts beside the caches that a cache may send us to for a NAR.
type outside struct {
	names     []string // "host", or "host:port"
	addresses []netip.Prefix
	proxied   *http.Transport
	direct    *http.Transport // asks no private address but those
}

// CheckHosts is an error if a relay could not go by such Options.Hosts.
func CheckHosts(hosts []string) error {
	_, err := newOutside(hosts, &http.Transport{})
	return err
}

func newOutside(hosts []string, through *http.Transport) (*outside, error) {
	o := &outside{proxied: through, direct: through.Clone()}
	for _, h := range hosts {
		if a, err := netip.ParseAddr(h); err == nil {
			o.addresses = append(o.addresses, netip.PrefixFrom(a, a.BitLen()))
		} else if p, err := netip.ParsePrefix(h); err == nil {
			o.addresses = append(o.addresses, p.Masked())
		} else if u, err := url.Parse("//" + h); err == nil && u.Hostname() != "" && strings.EqualFold(u.Host, h) && !strings.Contains(h, "*") {
			o.names = append(o.names, strings.ToLower(h))
		} else {
			return nil, fmt.Errorf("%q is neither a host like bucket.example.org or minio.lan:9000 nor an address like 10.0.0.0/8", h)
		}
	}
	o.direct.Proxy = nil
	o.direct.DialContext = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second, Control: o.control}).DialContext
	return o, nil
}

// allow is an error if a cache may not send us there.
func (o *outside) allow(cache, to *url.URL) error {
	scheme, address, _ := strings.Cut(Origin(to), "://")
	host, port, _ := net.SplitHostPort(address)
	usual := port == usualPort[scheme]
	known := slices.Contains(o.names, address) || usual && slices.Contains(o.names, host)
	if a, err := netip.ParseAddr(host); err == nil {
		known = o.listed(a)
	}
	if !known || to.Scheme != "https" && to.Scheme != cache.Scheme {
		return fmt.Errorf("leads to %s: if that is right, name the host in download.hosts", Origin(to))
	}
	return nil
}

func (o *outside) listed(a netip.Addr) bool {
	return slices.ContainsFunc(o.addresses, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// control sees the address that a name has led to.
func (o *outside) control(_, to string, _ syscall.RawConn) error {
	host, _, _ := net.SplitHostPort(to)
	a, err := netip.ParseAddr(host)
	if err != nil {
		return err
	}
	if a = a.Unmap(); address.Private(to) && !o.listed(a) {
		return fmt.Errorf("%w: %s is a private address; if that is right, name it in download.hosts", errRefused, a)
	}
	return nil
}

// RoundTrip implements http.RoundTripper. Where there is a proxy, it is the proxy that looks a name up.
func (o *outside) RoundTrip(req *http.Request) (*http.Response, error) {
	if o.proxied.Proxy != nil {
		if p, err := o.proxied.Proxy(req); p != nil || err != nil {
			return o.proxied.RoundTrip(req)
		}
	}
	return o.direct.RoundTrip(req)
}
