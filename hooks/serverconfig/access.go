package serverconfig

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"

	"narwharf/signing/access/rule"
	"narwharf/signing/access/scope"
)

// Access is the section [access]: who may do what.
type Access struct {
	Anonymous      []string      `toml:"anonymous"`
	TrustedProxies []string      `toml:"trusted_proxies"`
	Hosts          []string      `toml:"hosts"`
	OIDC           []OIDC        `toml:"oidc"`
	Certificates   []Certificate `toml:"certificate"`
	SSH            SSH           `toml:"ssh"`
	AWS            []AWS         `toml:"aws"`

	certificates []*rule.Rule
}

// checkAccess checks the section [access]. public is an address in listen that others
// reach, or "".
func (c *Config) checkAccess(public string) (err error) {
	if c.anonymous, err = scope.ParseSet(c.Access.Anonymous); err != nil {
		return fmt.Errorf("access.anonymous: %w", err)
	}
	for _, s := range c.anonymous {
		switch {
		case s.Kind == scope.Pull || s.Kind == scope.Metrics:
		case public != "":
			return fmt.Errorf("access.anonymous has %s and listen has %s: that would let everybody on the network do it; take it out, or listen on 127.0.0.1 alone", s, public)
		case len(c.Access.TrustedProxies) > 0:
			return fmt.Errorf("access.anonymous has %s and access.trusted_proxies has %s: that would let everybody do it who reaches that proxy; take it out, and give tokens", s, c.Access.TrustedProxies[0])
		case c.publicURL != nil && !loopback(c.publicURL.Hostname()):
			return fmt.Errorf("access.anonymous has %s and public_url is %s: that would let everybody do it who reaches that; take it out, and give tokens", s, c.PublicURL)
		}
	}
	for _, p := range c.Access.TrustedProxies {
		prefix, err := netip.ParsePrefix(p)
		if a, aerr := netip.ParseAddr(p); err != nil && aerr == nil {
			prefix, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return fmt.Errorf("access.trusted_proxies: %q is neither an address like 127.0.0.1 nor a range like 10.0.0.0/8", p)
		}
		c.proxies = append(c.proxies, prefix)
	}
	for _, h := range c.Access.Hosts {
		if u, err := url.Parse("//" + h); err != nil || h == "" || u.Host != h || u.Port() != "" {
			return fmt.Errorf("access.hosts: %q is not the name of a host, as \"cache.lan\": no scheme, port or path", h)
		}
	}
	if err := c.checkCertificates(); err != nil {
		return err
	}
	return cmp.Or(c.checkOIDC(), c.checkMachines())
}

// loopback tells whether a host is this machine and no other can mean it.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Private tells whether reading needs a token.
func (c *Config) Private() bool {
	everybody, err := scope.ParseSet(c.Access.Anonymous)
	return err == nil && !everybody.Allows(scope.Scope{Kind: scope.Pull})
}
