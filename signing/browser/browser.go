// Package browser keeps web pages from acting by the hands of whoever looks at them. A
// browser sends what a page of strangers tells it to, from inside of a network and with
// the credentials that it remembers. So whatever does more than the scope pull is refused
//
//   - if it changes something and is of a page of another origin, by what browsers say of
//     that (403, net/http.CrossOriginProtection);
//   - if it carries no token that is good and is for a host that is not this server's
//     (421): a name of strangers that leads here, with which their page is of the same
//     origin (DNS rebinding). Whoever sends a token has it from somewhere else than a page.
//
// A host is this server's if it is an IP address, localhost, that of public_url, or in
// [access] hosts. A request without one, of HTTP/1.0, may come from a proxy that has dropped it, and
// is for none. Reads that pull allows, and those that need no scope, as the probes of
// balancers, are answered under every name.
package browser

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"narwharf/signing/access"
)

// Origins refuses changes that pages of other origins ask for. public may be nil.
func Origins(public *url.URL) *http.CrossOriginProtection {
	protection := http.NewCrossOriginProtection()
	if public != nil {
		if err := protection.AddTrustedOrigin(public.Scheme + "://" + public.Host); err != nil {
			panic(err) // the configuration has checked it
		}
	}
	return protection
}

// Guard refuses what a web page has sent. public may be nil; hosts have no ports.
func Guard(public *url.URL, hosts []string) access.Guard {
	protection := Origins(public)
	ours, address := []string{"localhost"}, "its address"
	if public != nil {
		ours, address = append(ours, plain(public.Host)), public.String()
	}
	for _, h := range hosts {
		ours = append(ours, plain(h))
	}
	return func(r *http.Request, good bool) *access.Denied {
		if err := protection.Check(r); err != nil {
			return access.Refuse(http.StatusForbidden, fmt.Sprintf(
				"a web page of another origin (%s) has sent this: only pages of this server, and programs, may change something here", r.Header.Get("Origin")))
		}
		if good {
			return nil
		}
		host := plain(r.Host)
		if _, err := netip.ParseAddr(host); err == nil || slices.Contains(ours, host) {
			return nil
		}
		return access.Refuse(http.StatusMisdirectedRequest, fmt.Sprintf(
			"this carries no token that is good and is for %q, which is no name of this server: send a token, ask by %s, or add the name to hosts in [access] of the server's configuration", host, address))
	}
}

// plain is a host without port, brackets and the dot at its end, in lower case.
func plain(host string) string {
	u := url.URL{Host: host}
	return strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
}
