package certificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"narwharf/signing/access/rule"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert = a.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SerialNumber: big.NewInt(1)})
	return a
}

func (a *authority) issue(template *x509.Certificate) *x509.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer, a.key = template, key, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func check(t *testing.T, specs ...rule.Spec) (rules []*rule.Rule) {
	t.Helper()
	for _, s := range specs {
		r, err := Check(s)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, r)
	}
	return rules
}

// shown is a connection with a certificate; good, if the handshake has checked it.
func shown(cert *x509.Certificate, good bool) *tls.ConnectionState {
	s := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	if good {
		s.VerifiedChains = [][]*x509.Certificate{{cert}}
	}
	return s
}

func TestGrant(t *testing.T) {
	a := newAuthority(t)
	spiffe, err := url.Parse("spiffe://example.org/ci")
	if err != nil {
		t.Fatal(err)
	}
	ci := a.issue(&x509.Certificate{SerialNumber: big.NewInt(0xabc), Subject: pkix.Name{CommonName: "ci", Organization: []string{"Example"}}, URIs: []*url.URL{spiffe}})
	host := a.issue(&x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "web-1"}, DNSNames: []string{"web-1", "web-1.example.org"}})
	rules := New(check(t,
		rule.Spec{Name: "exact", Claims: map[string]any{"subject": "CN=ci,O=Example", "serial": "abc"}, Scopes: []string{"push"}},
		rule.Spec{Name: "hosts", Claims: map[string]any{"dns": "*.example.org"}, Scopes: []string{"follow:web"}, HostClaim: "cn", Hosts: []string{"web-*"}},
	), a.pool())
	g, ok := rules.Grant(shown(ci, true))
	if !ok || g.Name() != "certificate/exact" || g.Subject != "CN=ci,O=Example" || g.Scopes.String() != "push" || !g.Ends.Equal(ci.NotAfter) || g.Host != "" {
		t.Errorf("%+v %v", g, ok)
	}
	g, ok = rules.Grant(shown(host, true))
	if !ok || g.Host != "web-1" || g.Owner != "certificate/CN=web-1" {
		t.Errorf("%+v %v", g, ok)
	}
	for what, state := range map[string]*tls.ConnectionState{
		"none": nil, "without one": {}, "not checked": shown(ci, false),
		"another serial":       shown(a.issue(&x509.Certificate{SerialNumber: big.NewInt(0xabd), Subject: ci.Subject}), true),
		"another organisation": shown(a.issue(&x509.Certificate{SerialNumber: big.NewInt(0xabc), Subject: pkix.Name{CommonName: "ci", Organization: []string{"Other"}}}), true),
		"another host":         shown(a.issue(&x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "db-1"}, DNSNames: []string{"db-1.example.org"}}), true),
	} {
		if g, ok := rules.Grant(state); ok {
			t.Errorf("%s: %+v", what, g)
		}
	}
}

func TestCheck(t *testing.T) {
	for words, s := range map[string]rule.Spec{
		"host_claim": {Name: "a", Claims: map[string]any{"o": "x"}, Scopes: []string{"follow:web"}, Hosts: []string{"web-*"}},
		"claims":     {Name: "a", Scopes: []string{"push"}},
		"scopes":     {Name: "a", Claims: map[string]any{"cn": "x"}},
		"name":       {Claims: map[string]any{"cn": "x"}, Scopes: []string{"push"}},
	} {
		if _, err := Check(s); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", words, err)
		}
	}
}

// A rule that is gone, that gives something else, or an authority that is gone: the certificate does not
// give the same. Another rule does not matter to it.
func TestReplace(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	ci := a.issue(&x509.Certificate{SerialNumber: big.NewInt(5), Subject: pkix.Name{CommonName: "ci"}})
	spec := func(scopes ...string) rule.Spec {
		return rule.Spec{Name: "ci", Claims: map[string]any{"cn": "ci"}, Scopes: scopes}
	}
	other := rule.Spec{Name: "other", Claims: map[string]any{"cn": "other"}, Scopes: []string{"pull"}}
	for what, c := range map[string]struct {
		rules []*rule.Rule
		pool  *x509.CertPool
		same  bool
	}{
		"nothing changed":      {check(t, spec("push")), a.pool(), true},
		"another rule":         {check(t, other, spec("push")), a.pool(), true},
		"no rule":              {nil, a.pool(), false},
		"less":                 {check(t, spec("pull")), a.pool(), false},
		"more":                 {check(t, spec("push", "metrics")), a.pool(), false},
		"another authority":    {check(t, spec("push")), b.pool(), false},
		"no authority at all":  {check(t, spec("push")), x509.NewCertPool(), false},
		"bound to a serial":    {check(t, rule.Spec{Name: "ci", Claims: map[string]any{"cn": "ci", "serial": "5"}, Scopes: []string{"push"}}), a.pool(), true},
		"bound to another one": {check(t, rule.Spec{Name: "ci", Claims: map[string]any{"cn": "ci", "serial": "6"}, Scopes: []string{"push"}}), a.pool(), false},
	} {
		r := New(check(t, spec("push")), a.pool())
		if same := r.Replace(c.rules, c.pool)([]*x509.Certificate{ci}); same != c.same {
			t.Errorf("%s: the same: %v", what, same)
		}
		if _, ok := r.Grant(shown(ci, true)); ok != (len(c.rules) > 0 && what != "bound to another one") {
			t.Errorf("%s: it gives something: %v", what, ok)
		}
	}
}
