package linux_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/config"
	"narwharf/signing"
)

// certified is a certificate of a name by an authority of its own, and the
// authority in PEM.
func certified(t *testing.T, name string) (leaf tls.Certificate, authority []byte) {
	t.Helper()
	template := func(n int64, ca bool) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: ca, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.CreateCertificate(rand.Reader, template(1, true), template(1, true), &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own := template(2, false)
	own.Subject.CommonName = "leaf"
	own.DNSNames, own.ExtKeyUsage = []string{name}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, err := x509.CreateCertificate(rand.Reader, own, template(1, true), &key.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca})
}

// A tunnel is an HTTPS proxy that knows where one name is, and who asked.
type tunnel struct {
	to     string
	mu     sync.Mutex
	agents []string
}

func (p *tunnel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect || !strings.HasPrefix(r.Host, "cache.test:") {
		http.Error(w, "not for "+r.Host, http.StatusForbidden)
		return
	}
	p.mu.Lock()
	p.agents = append(p.agents, r.UserAgent())
	p.mu.Unlock()
	there, err := net.Dial("tcp", p.to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	here, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	_, _ = io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
	var wait sync.WaitGroup
	wait.Go(func() { _, _ = io.Copy(there, here); there.Close() })
	wait.Go(func() { _, _ = io.Copy(here, there); here.Close() })
	wait.Wait()
}

// TestProxyAndPrivateCA: the server's name means nothing here, its certificate
// is by nobody whom the system knows, and the only way out is a proxy. All of
// an agent goes that way: itself, Nix, and the agent of the new system.
func TestProxyAndPrivateCA(t *testing.T) {
	parallel(t)
	for _, version := range nixVersions {
		alone(t, version, func(t *testing.T) {
			f := newField(t, version)
			leaf, authority := certified(t, "cache.test")
			server := httptest.NewUnstartedServer(f)
			server.TLS = &tls.Config{Certificates: []tls.Certificate{leaf}}
			server.StartTLS()
			t.Cleanup(server.Close)
			way := &tunnel{to: server.Listener.Addr().String()}
			proxy := httptest.NewServer(way)
			t.Cleanup(proxy.Close)
			f.write("ca.pem", string(authority), 0o644)
			config := strings.Replace(f.read("agent.toml"), f.server.URL, "https://cache.test", 1)
			f.write("agent.toml", "ca_file = \"ca.pem\"\n"+config, 0o600)
			a := f.system("a", "", true)
			f.promote(1, signing.Auto, a, f.lib("a"))
			program, err := builtNarwharf()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, program, "agent", "once", "--config", filepath.Join(f.dir, "agent.toml"))
			cmd.Env = append(os.Environ(), "HTTPS_PROXY="+proxy.URL, "https_proxy="+proxy.URL, "NO_PROXY=", "no_proxy=")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			last := f.statuses[len(f.statuses)-1]
			if last.State != api.OK || last.Confirm == "" || last.Unconfirmed {
				t.Errorf("told %+v", last)
			}
			nix := 0
			for _, name := range way.agents {
				if strings.Contains(name, "relay") { // Nix's way out
					nix++
				}
			}
			if nix == 0 || len(way.agents)-nix < 2 {
				t.Errorf("through the proxy came %q", way.agents)
			}
		})
	}
}

// TestServersInTurn: the first does not resolve, the second refuses, the third
// answers, also to Nix.
func TestServersInTurn(t *testing.T) {
	parallel(t)
	// The Nix that takes ten seconds to give up one that does not answer.
	alone(t, "2.34", func(t *testing.T) {
		f := newField(t, "2.34")
		closed := httptest.NewServer(f)
		closed.Close()
		text := strings.Replace(f.read("agent.toml"), `"`+f.server.URL+`"`, `"http://nothing.invalid", "`+closed.URL+`", "`+f.server.URL+`"`, 1)
		f.write("agent.toml", text, 0o600)
		var err error
		if f.cfg, err = config.Load(filepath.Join(f.dir, "agent.toml")); err != nil {
			t.Fatal(err)
		}
		a := f.system("a", "", true)
		f.promote(1, signing.Auto, a, f.lib("a"))
		if j, s := f.once(); j.State != api.OK || s.State != api.OK || s.Confirm == "" {
			t.Fatalf("%s (%s), told %+v", j.State, j.Error, s)
		}
	})
}
