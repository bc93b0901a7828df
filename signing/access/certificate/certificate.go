// Package certificate says what a client's certificate gives, by the rules of package rule.
//
// The handshake has checked that an authority of [tls] client_ca has signed it, and that it has not
// ended. Its claims are
//
//	subject  "CN=ci,OU=build,O=Example", as RFC 2253 writes names
//	cn       the common name in there
//	o, ou    organisations and units in there
//	dns, uri, email   names that it is for (SAN)
//	serial   its number, in hexadecimal digits
//
// The first rule that fits counts. There are no lists of revoked certificates: who takes a rule
// away, or binds it to another serial, has the connections closed that the change concerns.
package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"
	"time"

	"narwharf/narinfo/clip"
	"narwharf/signing/access"
	"narwharf/signing/access/rule"
)

// Kind is that of its grants.
const Kind = "certificate"

// Rules are those of the moment.
type Rules struct{ now atomic.Pointer[set] }

type set struct {
	rules       []*rule.Rule
	authorities *x509.CertPool
}

// New makes Rules, for certificates of some authorities.
func New(rules []*rule.Rule, authorities *x509.CertPool) *Rules {
	r := new(Rules)
	r.now.Store(&set{rules, authorities})
	return r
}

// Check makes a rule of what a person wrote.
func Check(s rule.Spec) (*rule.Rule, error) {
	r, err := rule.New(s, Kind)
	if err == nil && r.Machines() && s.HostClaim == "" {
		err = fmt.Errorf("%s: %w", s.Name, errors.New(`it has follow:, and its hosts need a name: give host_claim = "cn" or "dns", the claim that has it`))
	}
	return r, err
}

// Grant is what a connection's certificate gives, and false if it gives nothing.
func (r *Rules) Grant(state *tls.ConnectionState) (access.Grant, bool) {
	if state == nil || len(state.VerifiedChains) == 0 {
		return access.Grant{}, false
	}
	return r.now.Load().grant(state.PeerCertificates[0])
}

// List is the rules.
func (r *Rules) List() []*rule.Rule { return r.now.Load().rules }

func (s *set) grant(leaf *x509.Certificate) (access.Grant, bool) {
	found, g := rule.Match("", s.rules, claims(leaf))
	if found == nil {
		return access.Grant{}, false
	}
	g.Kind, g.Subject, g.Ends = Kind, clip.ASCII(leaf.Subject.String(), 128), leaf.NotAfter
	if g.Owner != "" {
		g.Owner = Kind + "/" + g.Subject
	}
	return g, true
}

// Replace puts others in their place, and returns which certificates, each before the one that vouches
// for it, give what they gave.
func (r *Rules) Replace(rules []*rule.Rule, authorities *x509.CertPool) (same func(chain []*x509.Certificate) bool) {
	next := &set{rules, authorities}
	last := r.now.Swap(next)
	return func(chain []*x509.Certificate) bool {
		was, wasGood := last.grant(chain[0])
		is, isGood := next.grant(chain[0])
		return wasGood == isGood && reflect.DeepEqual(was, is) && next.vouches(chain)
	}
}

// vouches tells whether the authorities still vouch for a certificate.
func (s *set) vouches(chain []*x509.Certificate) bool {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: s.authorities, Intermediates: between, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err == nil
}

func claims(leaf *x509.Certificate) map[string]any {
	uris := make([]string, len(leaf.URIs))
	for i, u := range leaf.URIs {
		uris[i] = u.String()
	}
	all := map[string]any{"sub": leaf.Subject.String(), "subject": leaf.Subject.String(), "serial": fmt.Sprintf("%x", leaf.SerialNumber)}
	if leaf.Subject.CommonName != "" {
		all["cn"] = leaf.Subject.CommonName
	}
	for name, texts := range map[string][]string{"o": leaf.Subject.Organization, "ou": leaf.Subject.OrganizationalUnit, "dns": leaf.DNSNames, "uri": uris, "email": leaf.EmailAddresses} {
		switch len(texts) {
		case 0:
		case 1: // so that it can be the name of a host
			all[name] = texts[0]
		default:
			list := make([]any, len(texts))
			for i, t := range texts {
				list[i] = t
			}
			all[name] = list
		}
	}
	return all
}
