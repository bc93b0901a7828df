// Package oidctest is an OpenID issuer for tests: a TLS server with a certificate of its own, that signs
// what it is told to. It has discovery, a JWKS, keys that rotate, logins by code with PKCE (whoever asks is
// logged in as the person that the test has set) and by device (which the test approves).
package oidctest

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// The algorithms that it signs with.
const (
	RS256 = "RS256"
	ES256 = "ES256"
	ES384 = "ES384"
	EdDSA = "EdDSA"
)

// Options of an issuer. The zero value listens on a port of 127.0.0.1.
type Options struct {
	Address string // to listen on, "0.0.0.0:0"
	// Listener is where it listens, in place of Address: one in another network, say.
	Listener net.Listener
	Name     string   // of the host in its URL, if not that of Address; the certificate is for it, too
	Path     string   // of its URL, "/api/actions"
	Clients  []Client // that people log in with
}

// Client is one that people log in with.
type Client struct {
	ID        string
	Secret    string   // "": a public one
	Redirects []string // URLs that a code may be sent to
}

// Issuer is an issuer that serves.
type Issuer struct {
	URL string

	t       testing.TB
	roots   *x509.CertPool
	cert    []byte // PEM
	clients map[string]Client

	mu       sync.Mutex
	keys     []key // the last of an algorithm signs
	next     int   // number of the next key
	handler  http.Handler
	requests map[string]int
	person   map[string]any
	codes    map[string]*code
	devices  map[string]*device
}

// rsaKey is that of all issuers in a process: to make one takes long.
var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

type key struct {
	id, alg string
	private any
}

// New makes an issuer that serves until the test ends.
func New(t testing.TB, o Options) *Issuer {
	t.Helper()
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	l, err := o.Listener, error(nil)
	if l == nil {
		l, err = net.Listen("tcp", o.Address)
	}
	if err != nil {
		t.Fatal(err)
	}
	is := &Issuer{t: t, clients: map[string]Client{}, requests: map[string]int{}, codes: map[string]*code{}, devices: map[string]*device{}}
	for _, c := range o.Clients {
		is.clients[c.ID] = c
	}
	at := l.Addr().(*net.TCPAddr)
	name := o.Name
	if name == "" {
		name = at.IP.String()
	}
	is.URL = "https://" + net.JoinHostPort(name, port(at)) + o.Path
	pair := is.certificate(name)
	is.Rotate()
	is.handler = is.routes(o.Path)
	srv := &http.Server{Handler: http.HandlerFunc(is.serve), ReadHeaderTimeout: 10 * time.Second, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	return is
}

func port(a *net.TCPAddr) string {
	_, p, _ := net.SplitHostPort(a.String())
	return p
}

// certificate makes one for a name, that signs itself.
func (is *Issuer) certificate(name string) tls.Certificate {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		is.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "oidctest"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = append(template.IPAddresses, ip)
	} else {
		template.DNSNames = append(template.DNSNames, name)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		is.t.Fatal(err)
	}
	is.cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	is.roots = x509.NewCertPool()
	is.roots.AppendCertsFromPEM(is.cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// Roots are what its certificate is signed by.
func (is *Issuer) Roots() *x509.CertPool { return is.roots }

// Certificate is its certificate, PEM.
func (is *Issuer) Certificate() []byte { return is.cert }

// RootsFile is a file with its certificate, for SSL_CERT_FILE of other programs.
func (is *Issuer) RootsFile() string {
	name := filepath.Join(is.t.TempDir(), "issuer.pem")
	if err := os.WriteFile(name, is.cert, 0o644); err != nil { //nolint:gosec // a certificate is no secret
		is.t.Fatal(err)
	}
	return name
}

// Client is one that knows its certificate, and follows no redirect.
func (is *Issuer) Client() *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: is.roots, MinVersion: tls.VersionTLS12}}
	is.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Rotate gives it other keys of all algorithms; those before are forgotten. (The RSA key stays, under
// another name.)
func (is *Issuer) Rotate() {
	is.mu.Lock()
	defer is.mu.Unlock()
	is.keys = nil
	for _, alg := range []string{RS256, ES256, ES384, EdDSA} {
		is.addKey(alg)
	}
}

// addKey is for mu's holder.
func (is *Issuer) addKey(alg string) {
	var private any
	var err error
	switch alg {
	case RS256:
		private, err = rsaKey()
	case ES256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ES384:
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case EdDSA:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		is.t.Fatal(err)
	}
	is.next++
	is.keys = append(is.keys, key{id: "key-" + big.NewInt(int64(is.next)).String() + "-" + alg, alg: alg, private: private})
}

// Key is the key that signs by an algorithm, and its name.
func (is *Issuer) Key(alg string) (id string, private any) {
	is.mu.Lock()
	defer is.mu.Unlock()
	for _, k := range is.keys {
		if k.alg == alg {
			id, private = k.id, k.private
		}
	}
	return id, private
}

// JWKS is what it serves as its keys.
func (is *Issuer) JWKS() []byte {
	is.mu.Lock()
	defer is.mu.Unlock()
	var set jose.JSONWebKeySet
	for _, k := range is.keys {
		j := jose.JSONWebKey{Key: k.private, KeyID: k.id, Algorithm: k.alg, Use: "sig"}
		set.Keys = append(set.Keys, j.Public())
	}
	text, err := json.Marshal(set)
	if err != nil {
		is.t.Error(err)
	}
	return text
}

// Token signs claims by ES256. It adds iss, iat and an exp in five minutes where they are not given; a nil
// takes one away.
func (is *Issuer) Token(claims map[string]any) string { return is.Sign(ES256, nil, claims) }

// Sign is Token by another algorithm, with more in the header; a nil kid leaves that out.
func (is *Issuer) Sign(alg string, header, claims map[string]any) string {
	id, private := is.Key(alg)
	o := &jose.SignerOptions{ExtraHeaders: map[jose.HeaderKey]any{"typ": "JWT", "kid": id}}
	for name, v := range header {
		o.ExtraHeaders[jose.HeaderKey(name)] = v
		if v == nil {
			delete(o.ExtraHeaders, jose.HeaderKey(name))
		}
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: private}, o)
	if err != nil {
		is.t.Fatal(err)
	}
	now := time.Now()
	all := map[string]any{"iss": is.URL, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()}
	for name, v := range claims {
		if all[name] = v; v == nil {
			delete(all, name)
		}
	}
	payload, err := json.Marshal(all)
	if err != nil {
		is.t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		is.t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		is.t.Fatal(err)
	}
	return text
}

// Serve has h answer instead, which may call the handler that it is given, the issuer's own.
func (is *Issuer) Serve(h func(own http.Handler) http.Handler) {
	is.mu.Lock()
	defer is.mu.Unlock()
	is.handler = h(is.handler)
}

// Asked is how often something was asked for: "/jwks", say.
func (is *Issuer) Asked(path string) int {
	is.mu.Lock()
	defer is.mu.Unlock()
	return is.requests[path]
}

func (is *Issuer) serve(w http.ResponseWriter, req *http.Request) {
	is.mu.Lock()
	is.requests[req.URL.Path]++
	h := is.handler
	is.mu.Unlock()
	h.ServeHTTP(w, req)
}
