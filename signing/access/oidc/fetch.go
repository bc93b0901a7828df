package oidc

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"

	"narwharf/signing/access/address"
)

// maxDocument bounds what an issuer may answer, in bytes.
const maxDocument = 1 << 20

// newClient makes the client that asks an issuer. roots may be nil: the system's.
func newClient(private bool, roots *x509.CertPool) *http.Client {
	transport := func(control func(string, string, syscall.RawConn) error) *http.Transport {
		return &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second, Control: control}).DialContext,
			TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: fetchTimeout, IdleConnTimeout: 10 * time.Second,
			MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
		}
	}
	b := bounded{proxied: transport(nil), direct: transport(func(_, to string, _ syscall.RawConn) error {
		if !private && address.Private(to) {
			return fmt.Errorf("%s is a private address: say private_addresses = true in the section if that is right", to)
		}
		return nil
	})}
	b.proxied.Proxy = http.ProxyFromEnvironment
	return &http.Client{
		Transport: b, Timeout: fetchTimeout,
		CheckRedirect: func(req *http.Request, _ []*http.Request) error {
			return fmt.Errorf("it redirects to %s, and redirects are not followed: is issuer right?", req.URL.Redacted())
		},
	}
}

// bounded asks by https alone, and bounds what is answered. Where there is a proxy, it is the proxy
// that looks a name up.
type bounded struct{ direct, proxied *http.Transport }

var errPlain = errors.New("it is not https")

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s: %w", req.URL.Redacted(), errPlain)
	}
	by := b.direct
	if p, err := http.ProxyFromEnvironment(req); p != nil || err != nil {
		by = b.proxied
	}
	answer, err := by.RoundTrip(req)
	if err == nil {
		answer.Body = http.MaxBytesReader(nil, answer.Body, maxDocument)
	}
	return answer, err
}

// CloseIdleConnections is what http.Client's calls.
func (b bounded) CloseIdleConnections() {
	b.direct.CloseIdleConnections()
	b.proxied.CloseIdleConnections()
}
