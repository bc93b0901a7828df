package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// An Authority is a private CA.
type Authority struct {
	T    testing.TB
	File string // its certificate

	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes one.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{T: t, dir: scratch(t)}
	a.File = filepath.Join(a.dir, "ca.pem")
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "e2e authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	var der []byte
	der, a.key = a.sign(template)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.write(a.File, "CERTIFICATE", der)
	return a
}

func (a *Authority) sign(template *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	a.T.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.T.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.T.Fatal(err)
	}
	return der, key
}

func (a *Authority) write(name, kind string, der []byte) {
	a.T.Helper()
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.T.Fatal(err)
	}
}

// Issue writes a certificate for this machine's own address and for hosts, of a name, and its key into
// two files. Files of that name are replaced.
func (a *Authority) Issue(name string, hosts ...string) (cert, key string) {
	a.T.Helper()
	return a.IssueUntil(time.Time{}, name, hosts...)
}

// IssueUntil is Issue with another end than in a day. One that has ended was good for a month.
func (a *Authority) IssueUntil(end time.Time, name string, hosts ...string) (cert, key string) {
	a.T.Helper()
	der, secret := a.sign(&x509.Certificate{
		NotBefore: end.Add(-30 * 24 * time.Hour), NotAfter: end,
		Subject: pkix.Name{CommonName: name}, DNSNames: append([]string{"localhost"}, hosts...), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	text, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		a.T.Fatal(err)
	}
	cert, key = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	a.write(cert, "CERTIFICATE", der)
	a.write(key, "PRIVATE KEY", text)
	return cert, key
}

// server is the certificate of servers, which is made once.
func (a *Authority) server() (cert, key string) {
	a.T.Helper()
	cert = filepath.Join(a.dir, "server.pem")
	if _, err := os.Stat(cert); err != nil {
		return a.Issue("server")
	}
	return cert, filepath.Join(a.dir, "server.key")
}

// Client is what a program needs that trusts the authority alone.
func (a *Authority) Client() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{RootCAs: pool}
}
