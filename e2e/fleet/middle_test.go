package fleet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// A poll is what a reverse proxy saw of a long poll.
type poll struct {
	wait   string // Prefer
	took   time.Duration
	status int
}

// A front is a reverse proxy with TLS in front of the server, as nginx would be: a request that has no
// answer in time is cut with 504.
type front struct {
	mu    sync.Mutex
	limit time.Duration
	polls []poll
}

// newFront serves https://ci:<port> with a certificate of an authority that nobody knows, whose own
// certificate it returns.
func newFront(f *Fleet, port int, limit time.Duration) (*front, string) {
	t := f.T
	t.Helper()
	certificate, authority := privateCA(t, "ci")
	listener, err := f.CI().Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	p := &front{limit: limit}
	back := &url.URL{Scheme: "http", Host: serverName}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(back) },
		Transport: &http.Transport{DialContext: f.CI().DialContext},
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/desired") {
			proxy.ServeHTTP(w, r)
			return
		}
		begin := time.Now()
		p.mu.Lock()
		cut := p.limit
		p.mu.Unlock()
		seen := &status{ResponseWriter: w}
		http.TimeoutHandler(proxy, cut, "gateway time-out").ServeHTTP(seen, r)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.polls = append(p.polls, poll{wait: r.Header.Get("Prefer"), took: time.Since(begin), status: seen.code})
	})
	server := &http.Server{Handler: handler, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}}, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() { _ = server.Close() })
	return p, authority
}

// status notes the status, and makes nginx's 504 of TimeoutHandler's 503.
type status struct {
	http.ResponseWriter
	code int
}

func (s *status) WriteHeader(code int) {
	if code == http.StatusServiceUnavailable {
		code = http.StatusGatewayTimeout
	}
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

// seen are the polls since the last call, and cut the new limit.
func (p *front) seen(limit time.Duration) []poll {
	p.mu.Lock()
	defer p.mu.Unlock()
	polls := p.polls
	p.polls, p.limit = nil, limit
	return polls
}

// privateCA makes an authority and a certificate of it.
func privateCA(t testing.TB, name string) (tls.Certificate, string) {
	t.Helper()
	make := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if signer == nil {
			signer = key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		return key, der
	}
	from, to := time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a private authority"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	authorityKey, authorityDER := make(authority, authority, nil)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: from, NotAfter: to,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	key, der := make(leaf, authority, authorityKey)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authorityDER}))
}

// A wire forwards TCP connections to the server, until it forgets them: then they stay open and
// nothing comes through, as behind a firewall that lost its table.
type wire struct {
	listener net.Listener
	mu       sync.Mutex
	dead     chan struct{} // closed when the connections of now are forgotten
	conns    []net.Conn
}

func newWire(f *Fleet, port int) *wire {
	f.T.Helper()
	listener, err := f.CI().Listen(port)
	if err != nil {
		f.T.Fatal(err)
	}
	w := &wire{listener: listener, dead: make(chan struct{})}
	ci := f.CI()
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			go w.forward(ci, in)
		}
	}()
	f.T.Cleanup(w.cut)
	return w
}

func (w *wire) forward(ci *CI, in net.Conn) {
	out, err := net.Conn(nil), error(nil)
	if out, err = ci.DialContext(ci.T.Context(), "tcp", serverName+":80"); err != nil {
		_ = in.Close()
		return
	}
	w.mu.Lock()
	dead := w.dead
	w.conns = append(w.conns, in, out)
	w.mu.Unlock()
	pump := func(to, from net.Conn) {
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			select {
			case <-dead:
				return // neither the bytes nor the end
			default:
			}
			if n > 0 {
				if _, werr := to.Write(buf[:n]); werr != nil {
					err = werr
				}
			}
			if err != nil {
				_, _ = to.Close(), from.Close()
				return
			}
		}
	}
	go pump(in, out)
	pump(out, in)
}

// forget leaves the connections of now half open; new ones are forwarded.
func (w *wire) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.dead)
	w.dead = make(chan struct{})
}

// cut closes everything.
func (w *wire) cut() {
	_ = w.listener.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
}
